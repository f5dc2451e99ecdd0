/* Who may ask: with acl.enabled only the bearer of the one token, acl.tokens.master, and, without a
 * token, nobody, unless acl.tokens.default is that token. There are no rules for single tokens. */

#include <string.h>

#include "server/config.h"
#include "server/http/http_internal.h"
#include "server/server.h"

/* In Consul's order. Empty: none. */
static struct slice acl_token(const struct http_request *request)
{
    static const struct slice bearer = SLICE_LITERAL("Bearer ");
    const struct http_param *param = http_param(request, "token");

    if (param != NULL && param->value.size > 0) {
        return param->value;
    }
    const struct slice header = http_header(request, "X-Consul-Token");

    if (header.size > 0) {
        return header;
    }
    const struct slice authorization = http_header(request, "Authorization");

    if (authorization.size > bearer.size &&
        slice_equal_nocase(slice_from(authorization.data, bearer.size), bearer)) {
        return slice_from(authorization.data + bearer.size, authorization.size - bearer.size);
    }
    return SLICE_EMPTY;
}

/* In a time that depends on the lengths alone. */
static bool acl_equal(struct slice given, const char *secret)
{
    const size_t size = strlen(secret);
    unsigned difference = given.size != size;

    for (size_t i = 0; i < given.size && size > 0; i++) {
        difference |= (unsigned char)given.data[i] ^ (unsigned char)secret[i % size];
    }
    return difference == 0;
}

bool http_acl_check(struct http_request *request)
{
    const struct config *config = request->server->config;
    const struct slice token = acl_token(request);

    /* Who leads is no secret in Consul, either. */
    if (!config->acl_enabled || slice_starts_with(request->path, SLICE_LITERAL("/v1/status/"))) {
        return true;
    }
    if (token.size == 0) {
        if (config->acl_anonymous) {
            return true;
        }
        http_reply_error(request, 403, "Permission denied");
        return false;
    }
    if (!acl_equal(token, config->acl_token)) {
        http_reply_error(request, 403, "ACL not found");
        return false;
    }
    return true;
}
