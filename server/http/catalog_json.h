#ifndef SERVER_HTTP_CATALOG_JSON_H
#define SERVER_HTTP_CATALOG_JSON_H

/* Catalog records as Consul 1.8 prints them, and the building blocks that the agent's answers share
 * with them. Each appends to `out`. */

#include <jansson.h>
#include <stdbool.h>

#include "kv/buffer.h"
#include "kv/slice.h"
#include "server/catalog/catalog.h"
#include "server/http/filter.h"
#include "server/http/http.h"

/* {"ID":..,"Node":..,"Address":..,"Datacenter":..,"TaggedAddresses":..,"Meta":..,"CreateIndex":..}
 * A node without a datacenter is in `datacenter`. */
void catalog_json_node(struct buffer *out, const struct catalog_node *node, const char *datacenter);
/* A service below a node: catalog/node, health/service. */
void catalog_json_service(struct buffer *out, const struct catalog_service *service);
/* A service and its node in one flat object: catalog/service. */
void catalog_json_instance(struct buffer *out, const struct catalog_node *node,
                           const struct catalog_service *service, const char *datacenter);
void catalog_json_check(struct buffer *out, const struct catalog_check *check);
/* As transactions show them: tags that were not given are null, not an empty list. */
void catalog_json_service_stored(struct buffer *out, const struct catalog_service *service);
void catalog_json_check_stored(struct buffer *out, const struct catalog_check *check);

/* {"lan":{"Address":..,"Port":..},..} from triples. */
void catalog_json_tagged_addresses(struct buffer *out, struct strings triples);
/* `,"name":`, and with a text behind it. */
void catalog_json_key(struct buffer *out, const char *name);
void catalog_json_text(struct buffer *out, const char *name, struct slice text);
/* An empty list instead of null. */
void catalog_json_tags(struct buffer *out, struct strings tags);
/* A map, or {} instead of null. */
void catalog_json_map(struct buffer *out, struct strings pairs);

/* Packs a JSON array of strings (NULL: null). `buffer` holds the bytes. */
struct strings catalog_json_pack_list(struct buffer *buffer, const json_t *list);
/* Packs an object of strings as pairs in order of their keys (NULL: null). */
struct strings catalog_json_pack_map(struct buffer *buffer, const json_t *object);
/* The object's member names in byte order, in an array that the caller frees; NULL if there is none
 * or no memory. Valid until the object changes. */
const char **catalog_json_sorted_keys(const json_t *object, size_t *count);

/* Whether every `node-meta=key:value` parameter matches, and every `tag` one (without case). */
bool catalog_json_meta_matches(const struct http_request *request, struct strings meta);
bool catalog_json_tags_match(const struct http_request *request, struct strings tags);

/* Reads the `filter` parameter, if there is one. False when it was bad and has been answered;
 * `index_headers`: with those that Consul puts on errors of the catalog. */
bool catalog_json_filter_begin(struct http_request *request, enum filter_kind kind,
                               bool index_headers);
/* A comma, unless the list or object that `out` ends in has nothing yet. Returns where it was: the
 * start that catalog_json_filter_from goes back to. */
size_t catalog_json_next(struct buffer *out);
/* Takes back what was appended to `out` since `start` if the object that begins at `object` and
 * ends the buffer does not pass the filter. */
void catalog_json_filter_from(const struct http_request *request, struct buffer *out, size_t start,
                              size_t object);

#endif
