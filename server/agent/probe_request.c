#include "server/agent/probe_request.h"

#include <string.h>

/* RFC 9110, 5.6.2. */
static bool probe_token_is_valid(struct slice text)
{
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] <= 0x20 || text.data[i] >= 0x7f ||
            strchr("()<>@,;:\\\"/[]?={}", text.data[i]) != NULL) {
            return false;
        }
    }
    return text.size > 0;
}

static bool probe_value_is_valid(struct slice text)
{
    for (size_t i = 0; i < text.size; i++) {
        if (((unsigned char)text.data[i] < 0x20 && text.data[i] != '\t') || text.data[i] == 0x7f) {
            return false;
        }
    }
    return true;
}

/* Told to nobody whom it was not meant for: Go's list, and the names that proxies and Consul itself
 * have for the same. */
static bool probe_header_is_secret(struct slice name)
{
    static const char *const secrets[] = {"Authorization",    "Cookie",
                                          "Cookie2",          "Proxy-Authorization",
                                          "WWW-Authenticate", "X-Consul-Token"};

    for (size_t i = 0; i < sizeof(secrets) / sizeof(secrets[0]); i++) {
        if (slice_equal_nocase(name, slice_from_text(secrets[i]))) {
            return true;
        }
    }
    return false;
}

static void probe_request_add(struct probe_request *request, const char *name, struct slice value)
{
    static const char *const ours[] = {"Connection", "Content-Length", "Transfer-Encoding"};
    const struct slice key = slice_from_text(name);

    if (!probe_token_is_valid(key) || !probe_value_is_valid(value)) {
        return;
    }
    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {
        if (slice_equal_nocase(key, slice_from_text(ours[i]))) {
            return;
        }
    }
    if (slice_equal_nocase(key, SLICE_LITERAL("host"))) {
        buffer_clear(&request->host);
        buffer_append_slice(&request->host, value);
        return;
    }
    struct buffer *lines = probe_header_is_secret(key) ? &request->secret : &request->header;

    buffer_append_text(lines, name);
    buffer_append_text(lines, ": ");
    buffer_append_slice(lines, value);
    buffer_append_text(lines, "\r\n");
}

static void probe_request_add_all(struct probe_request *request, const json_t *header)
{
    bool agent_given = false;
    bool accept_given = false;
    union {
        const json_t *in;
        json_t *out; /* jansson's iteration takes a pointer to non-const, though it only reads */
    } pun = {.in = header};
    const char *name;
    json_t *values;

    json_object_foreach(pun.out, name, values)
    {
        const struct slice key = slice_from_text(name);
        size_t i;
        json_t *value;

        agent_given = agent_given || slice_equal_nocase(key, SLICE_LITERAL("user-agent"));
        accept_given = accept_given || slice_equal_nocase(key, SLICE_LITERAL("accept"));
        json_array_foreach(values, i, value)
        {
            probe_request_add(request, name,
                              slice_from(json_string_value(value), json_string_length(value)));
        }
    }
    if (!agent_given) {
        probe_request_add(request, "User-Agent", SLICE_LITERAL("Consul Health Check"));
    }
    if (!accept_given) {
        probe_request_add(request, "Accept", SLICE_LITERAL("text/plain, text/*, */*"));
    }
}

void probe_request_init(struct probe_request *request, struct slice method, const json_t *header,
                        struct slice body)
{
    *request = (struct probe_request){0};
    buffer_append_slice(&request->method,
                        probe_token_is_valid(method) ? method : SLICE_LITERAL("GET"));
    buffer_append_slice(&request->body, body);
    probe_request_add_all(request, header);
}

void probe_request_deinit(struct probe_request *request)
{
    buffer_deinit(&request->method);
    buffer_deinit(&request->header);
    buffer_deinit(&request->secret);
    buffer_deinit(&request->host);
    buffer_deinit(&request->body);
}

void probe_request_redirect(struct probe_request *request, const struct probe_url *first,
                            const struct probe_url *to, bool named, bool with_body)
{
    request->without_body = !with_body;
    if (named) {
        buffer_clear(&request->host); /* It was for the address before. */
    }
    if (!probe_url_is_below(to, first)) {
        buffer_clear(&request->secret);
    }
}

void probe_request_write(const struct probe_request *request, const struct probe_url *url,
                         struct buffer *out)
{
    const struct slice body = request->without_body ? SLICE_EMPTY : buffer_slice(&request->body);

    buffer_append_slice(out, buffer_slice(&request->method));
    buffer_append_char(out, ' ');
    if (url->path.size == 0 || url->path.data[0] != '/') {
        buffer_append_char(out, '/');
    }
    for (size_t i = 0; i < url->path.size; i++) {
        if (url->path.data[i] == ' ') {
            buffer_append_text(out, "%20");
        } else {
            buffer_append_char(out, url->path.data[i]);
        }
    }
    buffer_append_text(out, " HTTP/1.1\r\nHost: ");
    buffer_append_slice(out,
                        request->host.size > 0 ? buffer_slice(&request->host) : url->authority);
    buffer_append_text(out, "\r\n");
    buffer_append_slice(out, buffer_slice(&request->header));
    buffer_append_slice(out, buffer_slice(&request->secret));
    if (body.size > 0) {
        buffer_printf(out, "Content-Length: %zu\r\n", body.size);
    }
    buffer_append_text(out, "Connection: close\r\n\r\n");
    buffer_append_slice(out, body);
    out->failed = out->failed || request->method.failed || request->header.failed ||
                  request->secret.failed || request->host.failed || request->body.failed;
}
