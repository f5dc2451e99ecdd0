#ifndef SERVER_HTTP_HTTP_H
#define SERVER_HTTP_HTTP_H

/* The HTTP server: connections (llhttp), requests, routing, answers, and the common parts of
 * endpoints (parameters, consistency, blocking queries, writes through the log). One file per
 * family of endpoints: http_kv.c, http_session.c, http_status.c, http_agent.c, http_catalog.c,
 * http_health.c. Everything runs on the loop.
 *
 * A request lives from its first byte until its answer is written. A handler is called when the
 * body is complete; it answers at once or later, exactly once, with one of http_reply_*, and does
 * not touch the request after that. When the client goes away before the answer, the request is
 * cancelled: `on_cancel` is called if set, and the request is freed when every outstanding call
 * (http_read_start, http_write_start, http_request_hold) has come back. A handler that waits for
 * something of its own either sets on_cancel, and forgets the request in it, or answers anyway
 * (the answer is dropped). */

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "kv/buffer.h"
#include "kv/errmsg.h"
#include "kv/slice.h"
#include "kv/uuid.h"
#include "kv/watch.h"
#include "server/command.h"
#include "server/replica.h"

struct server;
struct http_server;
struct http_conn;
struct http_request;

enum http_method {
    HTTP_METHOD_GET = 1 << 0,
    HTTP_METHOD_PUT = 1 << 1,
    HTTP_METHOD_POST = 1 << 2,
    HTTP_METHOD_DELETE = 1 << 3,
    HTTP_METHOD_HEAD = 1 << 4,
    HTTP_METHOD_OPTIONS = 1 << 5,
    HTTP_METHOD_OTHER = 1 << 6,
};

enum {
    HTTP_TARGET_BYTES_MAX = 64 * 1024,
    HTTP_HEADERS_BYTES_MAX = 64 * 1024,
    HTTP_HEADERS_COUNT_MAX = 256,
    HTTP_PARAMS_MAX = 64,
    HTTP_WATCHES_MAX = 3, /* topics that one blocking query waits for */
};

typedef void (*http_handler)(struct http_request *request);

/* One endpoint. `path` without wildcard matches exactly; ending in '/' it matches everything below,
 * and the rest (decoded) is request->rest. Longest match wins. */
struct http_route {
    const char *path;
    unsigned methods;  /* allowed ones; others are a 405 with Allow in Consul's order: see allow */
    const char *allow; /* "OPTIONS,GET" */
    http_handler handler;
};

/* The tables of the families, ended by an entry with a NULL path; joined in http_routes.c. */
extern const struct http_route http_routes_kv[];
extern const struct http_route http_routes_session[];
extern const struct http_route http_routes_txn[];
extern const struct http_route http_routes_event[];
extern const struct http_route http_routes_status[];
extern const struct http_route http_routes_agent[];
extern const struct http_route http_routes_catalog[];
extern const struct http_route http_routes_health[];
extern const struct http_route http_routes_operator[];
extern const struct http_route http_routes_snapshot[];
extern const struct http_route http_routes_coordinate[];
extern const struct http_route
    http_routes_misc[]; /* acl, debug, ...: what answers with a fixed error */

/* Listens on the configured addresses. */
int http_server_new(struct server *server, struct http_server **out, struct errmsg *err);
/* Orderly stop, first half: closes the listeners and idle connections, ends blocking queries with
 * what they have; requests in flight go on. `done` is called when the last one is answered, at the
 * latest after `timeout_ms`. */
void http_server_drain(struct http_server *http, uint64_t timeout_ms, void (*done)(void *context),
                       void *context);
void http_server_free(struct http_server *http);
/* Sets the gauges of its connections. */
void http_server_metrics(struct http_server *http);
/* An interval of the metrics is over: tells those that follow them. */
void http_metrics_turned(struct http_server *http);
/* The user events that this server knows: owned by the HTTP server. NULL without memory. */
struct events;
struct events *http_events(struct http_server *http);

struct http_param {
    struct slice name; /* decoded */
    struct slice value;
    bool has_value; /* "name=" or "name=value", not bare "name" */
};

struct http_request {
    struct server *server;
    struct http_conn *conn;
    enum http_method method;
    struct slice path;         /* decoded */
    struct slice rest;         /* decoded, below a prefix route */
    struct http_param *params; /* valid until the answer, as path and rest are */
    size_t param_count;
    struct slice body; /* complete; de-chunked */
    bool has_content_length;
    bool chunked;
    uint64_t content_length;
    bool pretty; /* ?pretty */

    /* The handler's: freed with the request by on_free if set. */
    void *state;
    void (*on_free)(struct http_request *request);
    void (*on_cancel)(struct http_request *request);
    /* The handler's: it waits for something to happen, maybe for long, so that a client which has
     * closed its side is taken to be gone. Others get their answer. */
    bool sleeps;
    bool cancelled;

    struct http_request_private *private; /* http_conn.c's, http_read.c's, http_write.c's */
};

/* First parameter of that name (case-sensitive), NULL if there is none. */
const struct http_param *http_param(const struct http_request *request, const char *name);
bool http_has_param(const struct http_request *request, const char *name);
/* Its value, empty if missing. */
struct slice http_param_value(const struct http_request *request, const char *name);
/* A request header's value (name compared without case), empty if missing. Not after
 * http_read_start has called `run` for the second time: a waiting request keeps no headers and no
 * body. */
struct slice http_header(const struct http_request *request, const char *name);

/* Keeps the request alive, though cancelled, while something outside (a replica call, say) holds a
 * pointer to it. http_request_release gives it back; false: it was cancelled and is gone now. */
void http_request_hold(struct http_request *request);
bool http_request_release(struct http_request *request);

/* --- answers --- */

/* Adds a header to the answer to come. Name as it goes on the wire ("X-Consul-Index"). CR and LF
 * are refused. */
void http_add_header(struct http_request *request, const char *name, const char *value);
/* Answers with any body; content_type NULL: none. `body` is copied or taken over by the connection
 * before return. */
void http_reply(struct http_request *request, int status, const char *content_type,
                struct slice body);
/* 200 application/json. `json` is compact; with ?pretty it is indented here by four spaces and gets
 * its newline. */
void http_reply_json(struct http_request *request, struct slice json);
/* text/plain; charset=utf-8 */
void http_reply_text(struct http_request *request, int status, struct slice text);
void http_reply_error(struct http_request *request, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Appends Go's %q, for texts in errors. */
void http_put_quoted(struct buffer *out, struct slice text);
/* 200 with an empty body and no Content-Type, as agent writes have it. */
void http_reply_empty(struct http_request *request, int status);

/* --- JSON out: straight into a buffer, escaped as Go's encoding/json does (<, >, & and U+2028/9 as
 * \u00xx) --- */
void json_put_string(struct buffer *out, struct slice text);
void json_put_base64(struct buffer *out, struct slice bytes); /* with quotes; null when empty */
void json_put_u64(struct buffer *out, uint64_t value);
void json_put_i64(struct buffer *out, int64_t value);
/* Shortest digits that read back as the same number, as Go writes them. Finite. */
void json_put_double(struct buffer *out, double value);
void json_put_bool(struct buffer *out, bool value);
void json_put_strings(struct buffer *out, struct strings list); /* array, or null */
void json_put_map(struct buffer *out, struct strings pairs);    /* object of strings, or null */

/* --- JSON in --- */

/* Parses the body (text after the first value is ignored). On failure answers 400 `<prefix>:
 * <reason>` and returns NULL. */
json_t *http_body_json(struct http_request *request, const char *error_prefix);
/* Member by name, compared without case, the last one wins (Go's rule); NULL if there is none. */
json_t *json_member(const json_t *object, const char *name);

/* --- reads --- */

/* What a read found. The framework calls `run` when the local store is fresh enough, inside a read
 * transaction; again after each wake-up of a blocking query. */
struct http_read_result {
    struct buffer body;       /* the answer; cleared before each run */
    int status;               /* 200, 404 (no body sent), or an error */
    const char *content_type; /* "application/json" by default */
    uint64_t index;           /* X-Consul-Index; 0 is reported as 1 */
    bool error;               /* body is error text: text/plain */
};

/* A listing that is read piece by piece, for it may be long. Zeroed but for `out` to begin with;
 * what it owns goes with http_piece_deinit. */
struct http_piece {
    struct buffer *out; /* appended to; NULL: only the index is wanted */
    struct buffer last; /* the key that was read last */
    struct buffer name; /* the name that was listed last */
    bool begun;         /* something was read, or listed */
    bool done;          /* all of it was */
    bool missing;       /* done: there is nothing, a 404 */
    bool listed;        /* all was listed; what else the index takes in is still looked through */
    bool indexed;       /* the index is complete from the first piece on, or is not asked for */
    uint64_t index;     /* of what was read; complete when done */
    void *state;        /* what else it keeps from piece to piece; freed by on_free */
    void (*on_free)(void *state);
};
void http_piece_deinit(struct http_piece *piece);

enum http_read_flags {
    HTTP_READ_INDEX_HEADERS =
        1 << 0,                   /* X-Consul-Index, -Knownleader, -Lastcontact on 200 and 404 */
    HTTP_READ_EFFECTIVE = 1 << 1, /* X-Consul-Effective-Consistency (catalog, health) */
    HTTP_READ_ERROR_HEADERS = 1 << 2,  /* index 1, Knownleader false, Lastcontact 0 on its 500s */
    HTTP_READ_CACHEABLE = 1 << 4,      /* X-Cache with ?cached */
    HTTP_READ_LEADER_HEADERS = 1 << 3, /* X-Consul-Knownleader and -Lastcontact alone */
    HTTP_READ_BARE_404 = 1 << 5,       /* a 404 has none of them, unless gzip is asked for */
};

struct http_read_spec {
    unsigned flags;
    /* What to wait for with ?index. Several topics may be watched: HTTP_WATCHES_MAX. */
    struct {
        enum store_topic topic;
        struct slice key; /* borrowed from the request */
        bool prefix;
    } watches[HTTP_WATCHES_MAX];
    size_t watch_count;
    /* Instead of `run`: goes on where the piece ended, for a bounded time, within one snapshot. */
    int (*piece)(struct http_request *request, struct store_txn *txn, struct http_piece *piece);
    /* Fills `result`. A store error is answered with a 500. */
    int (*run)(struct http_request *request, struct store_txn *txn,
               struct http_read_result *result);
};

/* Parses the common parameters (index, wait, stale, consistent, cached, max_stale, dc,
 * Cache-Control) with Consul's errors, waits until the store is as fresh as asked, runs, blocks as
 * asked, answers. `spec` is copied. */
void http_read_start(struct http_request *request, const struct http_read_spec *spec);
/* The checks alone, for handlers that must look at their own parameters between: false when it has
 * answered (bad parameter, other datacenter). Order in Consul: common parameters first. */
bool http_check_common(struct http_request *request, unsigned flags);

/* --- writes --- */

/* Proposes the command; `done` is called on the loop with the result, or not at all: a failure (no
 * leader, refused) has been answered with Consul's 500 by then. NULL `done` answers `true` or
 * `false` from result->ok. */
void http_write_start(struct http_request *request, struct slice command,
                      void (*done)(struct http_request *request,
                                   const struct command_result *result));

#endif
