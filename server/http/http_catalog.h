#ifndef SERVER_HTTP_HTTP_CATALOG_H
#define SERVER_HTTP_HTTP_CATALOG_H

/* PUT /v1/catalog/register and /v1/catalog/deregister. */

#include "server/http/http.h"

void http_catalog_register(struct http_request *request);
void http_catalog_deregister(struct http_request *request);

#endif
