#ifndef SERVER_HTTP_HTTP_CATALOG_H
#define SERVER_HTTP_HTTP_CATALOG_H

/* PUT /v1/catalog/register and /v1/catalog/deregister. */

#include "server/catalog/catalog.h"
#include "server/http/http.h"

void http_catalog_register(struct http_request *request);
void http_catalog_deregister(struct http_request *request);

/* What a service that was read from JSON borrows, besides the document. */
struct catalog_service_buffers {
    struct buffer tags, meta, tagged;
    char *extra;
};
/* Reads a service, its ModifyIndex included; an id that is missing is the name. False with Go's
 * text when it is wrong. `type_name` is what Go calls it. The buffers are the caller's to free
 * either way. */
bool http_catalog_read_service(const json_t *json, const char *type_name,
                               struct catalog_service_buffers *buffers, struct catalog_service *out,
                               struct errmsg *err);
void http_catalog_service_deinit(struct catalog_service_buffers *buffers);
/* Reads a check and appends u32 size and catalog_check_encode's bytes. A check that names no node
 * is on `node`. `in_txn`: of a transaction, which knows fewer members of its definition. */
bool http_catalog_read_check(const json_t *json, bool in_txn, struct slice node, struct buffer *out,
                             struct errmsg *err);

#endif
