#ifndef SERVER_HTTP_HTTP_INTERNAL_H
#define SERVER_HTTP_HTTP_INTERNAL_H

/* What the files of the HTTP server share. A connection owns at most one request at a time: answers
 * to pipelined requests go out in order because the next request is only looked at when the one
 * before it has been answered. */

#include <llhttp.h>
#include <sys/queue.h>
#include <uv.h>

#include "server/events.h"
#include "server/http/filter.h"
#include "server/http/http.h"
#include "server/http/http_gzip.h"

enum {
    HTTP_READ_BYTES = 16 * 1024,                 /* one read; also the size of a recycled buffer */
    HTTP_SPARE_BUFFERS_MAX = 64,                 /* recycled read buffers */
    HTTP_METHOD_BYTES_MAX = 32,                  /* longest method name */
    HTTP_BODY_BYTES_MAX = 1024 * 1024,           /* bodies of all endpoints but KV */
    HTTP_SNAPSHOT_BYTES_MAX = 256 * 1024 * 1024, /* an archive to restore, compressed */
    HTTP_ARCHIVES_MAX = 2, /* such archives that are taken in at once; who comes then waits */
    HTTP_SAVES_MAX = 4,    /* archives that are made at once, or on their way to their clients */
    HTTP_PLACE_GRACE_MS = 30 * 1000,     /* for who has one of these places and moves its archive */
    HTTP_PLACE_RATE_BYTES = 64 * 1024,   /* slower than so much a second: others get it by then */
    HTTP_PIPELINE_BYTES_MAX = 64 * 1024, /* read ahead of the request that is being answered */
    HTTP_DRAIN_BYTES_MAX = 256 * 1024,   /* unread body that is read and dropped, not closed on */
    HTTP_LINGER_BYTES_MAX = 4 * 1024 * 1024, /* dropped after the last answer, before the close */
    HTTP_COPY_BYTES_MAX = 16 * 1024,         /* bodies up to this are copied beside their header */
    HTTP_ANSWER_BYTES_MAX = 256 * 1024 * 1024, /* largest answer: a listing above it is a 500 */
    HTTP_TEXT_KEEP_BYTES = 512, /* memory for path and parameters kept between requests */
    HTTP_LISTENERS_MAX = 8,
    HTTP_CACHED_MAX = 1024,             /* ?cached requests that are remembered */
    HTTP_HEADER_TIMEOUT_MS = 10 * 1000, /* from the first byte of a request to its blank line */
    HTTP_BODY_TIMEOUT_MS = 30 * 1000,   /* without a byte of an announced body */
    HTTP_IDLE_TIMEOUT_MS = 120 * 1000,  /* between requests */
    HTTP_WRITE_TIMEOUT_MS = 30 * 1000,  /* without the client taking a byte of the answer */
    HTTP_LINGER_TIMEOUT_MS = 2 * 1000,  /* for the client to close after the last answer */
    HTTP_RATE_BYTES =
        4 * 1024,            /* of a body or an answer that renew its time-out: less is a trickle */
    HTTP_TURN_US_MAX = 2000, /* of one turn of the loop for waking and streaming */
    HTTP_WOKEN_US_MAX = 10 * 1000,      /* to encode at once what all waiters for the same get */
    HTTP_PIECE_BYTES = 256 * 1024,      /* of a listing, encoded in one go */
    HTTP_WHOLE_BYTES_MAX = 1024 * 1024, /* a listing beyond this is sent as it is encoded */
    HTTP_PRETTY_BYTES_MAX = 16 * 1024 * 1024, /* the same with ?pretty, which needs all of it */
    HTTP_STREAMS_MAX = 32, /* snapshots that listings read from at once; others queue */
    HTTP_STREAM_RATE_BYTES = 1024 * 1024, /* a second: whoever takes less is slow */
    HTTP_STREAM_STALL_MS =
        5000, /* waiting for a client with its snapshot open; then the rest is copied */
    HTTP_STREAM_WANTED_MS = 1000,                  /* the same while others queue for a snapshot */
    HTTP_STREAM_TICK_MS = 1000,                    /* between two looks for that */
    HTTP_STREAM_COPY_BYTES_MAX = 64 * 1024 * 1024, /* of such a rest */
    HTTP_STREAM_COPIES_BYTES_MAX = 256 * 1024 * 1024, /* of all of them together */
};

/* How http_handler's promise to answer stands. */
enum http_phase {
    HTTP_PHASE_BODY,    /* its body is not complete: nobody works on it yet */
    HTTP_PHASE_HANDLER, /* the handler owes the answer */
    HTTP_PHASE_READ,    /* waits in replica_read */
    HTTP_PHASE_PARKED,  /* a blocking query waits for a change or its time */
    HTTP_PHASE_WOKEN,   /* its change has come, its turn has not */
    HTTP_PHASE_STREAM,  /* a long listing is encoded and sent piece by piece */
    HTTP_PHASE_HELD,    /* waits for a call that cannot be withdrawn (http_request_hold) */
    HTTP_PHASE_ANSWERED,
};

struct http_watch {
    struct watch watch;
    struct http_request *request;
};

/* An answer's body, shared by those that send it: each holds a reference. */
struct http_body {
    unsigned references;
    struct buffer bytes;
    struct http_body *packed; /* the same with gzip, a reference; NULL: not made yet */
};

struct http_conn;
struct http_file;
struct http_spool;
struct http_stream;

struct http_request_private {
    enum http_phase phase;
    unsigned holds;                 /* http_request_hold */
    const struct http_route *route; /* once found */
    bool known;            /* a known endpoint: Vary and configured headers go on its answers */
    bool bad_query;        /* malformed escape in the query */
    bool gzip;             /* the client takes it, and the answer may have it */
    struct buffer headers; /* http_add_header: whole lines */
    size_t headers_before; /* bytes of them that are there before a read is run */
    char *text;            /* parameters, decoded path and values */
    size_t text_bytes;
    uint64_t start_ns; /* http_timing.c: by uv_hrtime; 0: is not timed */
    /* http_write.c */
    void (*write_done)(struct http_request *request, const struct command_result *result);
    struct filter *filter;  /* ?filter, owned */
    struct uuid session_id; /* http_session.c: the one being made or renewed */
    /* http_read.c */
    struct http_read_spec spec;
    union {                                          /* never both at once */
        struct http_watch watches[HTTP_WATCHES_MAX]; /* parked */
        struct replica_read read;                    /* asking for freshness */
        TAILQ_ENTRY(http_conn) woken;
    } wait;
    enum replica_consistency consistency;
    bool parsed;                /* the common parameters are */
    bool timed_out;             /* answer with what there is */
    bool changed;               /* what it waits for, while its listing was read */
    bool put_off;               /* among the woken, though it did not sleep: http_read.c */
    struct http_stream *stream; /* http_stream.c: owned */
    uint64_t min_index;
    uint64_t wait_ms;
};

enum http_conn_state {
    HTTP_CONN_HEAD,   /* collects a request's head; idle while nothing of it has come */
    HTTP_CONN_BODY,   /* collects its body */
    HTTP_CONN_BUSY,   /* the request is being answered */
    HTTP_CONN_WRITE,  /* the answer did not fit the socket's buffer */
    HTTP_CONN_DRAIN,  /* answered before its body was read; drops the rest of it */
    HTTP_CONN_LINGER, /* last answer sent, write side closed; drops what comes until the client
                         closes */
    HTTP_CONN_CLOSED, /* uv_close was called */
};

/* What one address has. */
struct http_client {
    struct http_client *next;
    unsigned count;            /* of connections */
    unsigned stream_snapshots; /* of the server's, */
    uint64_t stream_copied_bytes;
    unsigned char address[16]; /* IPv4 in the first four bytes */
};

#define HTTP_CONN_MAGIC 0x48434f4eU

struct http_conn {
    uint32_t magic;
    enum http_conn_state state;
    struct http_server *http;
    struct http_conn *next, *previous;
    struct http_client *client; /* NULL: not known */
    uv_tcp_t tcp;
    bool tcp_closed; /* the close callback has run */

    /* Input. `in` starts with the first byte of the current request; bytes that come while it is
     * being answered go to `ahead`, since the request's slices point into `in`. */
    struct buffer in;
    struct buffer ahead;
    size_t scanned;           /* of `in`: the search for the blank line has come so far */
    size_t head_bytes;        /* with the blank line */
    size_t body_bytes;        /* gathered so far; the body follows the head in `in` */
    size_t raw_bytes;         /* of the body as sent, chunk headers included */
    size_t rate_bytes;        /* of it since its time-out was renewed */
    size_t end;               /* of `in`: where the current request ends, once complete */
    struct http_spool *spool; /* where the body goes, one of http->archives; NULL: into `in` */
    struct http_file *file;   /* where the answer comes from, one of http->saves; NULL: memory */
    uint64_t place_ms;        /* when either began to move, by uv_now */
    llhttp_t parser;
    bool complete;            /* the whole request has been read */
    bool eof;                 /* the client has closed its side */
    bool paused;              /* reading is stopped: too much came ahead */
    bool session_ttl_refused; /* on this connection, ever: http_agent.c */

    /* The current request. */
    char method[HTTP_METHOD_BYTES_MAX + 1];
    struct slice url; /* raw target, valid during dispatch */
    bool http_1_0;
    bool keep_alive;
    bool expects_continue;
    bool close_after; /* close when the current answer is out */
    bool no_body;     /* HEAD: the answer's header only */
    unsigned entered; /* a handler is on the stack: what follows its answer waits for its return */
    struct http_request request;
    struct http_request_private private;

    /* Deadline, in http->deadlines. */
    uint64_t deadline_ms;
    uint64_t heap_key_ms; /* <= deadline_ms: an entry that comes up early is put back */
    size_t heap_at;       /* SIZE_MAX: not in the heap */
    size_t write_queued;  /* bytes unsent when the write deadline was set */
};

/* A long listing: http_stream.c. */
enum http_stream_state {
    HTTP_STREAM_QUEUED,  /* has no snapshot yet */
    HTTP_STREAM_COLLECT, /* encodes into `body` */
    HTTP_STREAM_INDEX,   /* the body is long: looks for the index of the rest */
    HTTP_STREAM_SEND,
};

struct http_stream {
    TAILQ_ENTRY(http_stream) entry;
    struct http_request *request;
    struct replica_freshness freshness;
    enum http_stream_state state;
    bool waits;  /* for the client to take what was sent */
    bool copies; /* it was waited for too long */
    bool last;   /* the last piece is with the client */
    bool txn_open;
    struct store_txn txn;
    uint64_t sent_bytes; /* since the last tick */
    unsigned stalled_ms;
    uint64_t copied_bytes;
    struct http_piece piece;
    struct http_piece scout; /* runs ahead of the piece for the index */
    struct buffer body;      /* encoded, not sent */
    struct http_gzip *gzip;  /* owned; NULL: it is sent as it is */
    struct http_body *whole; /* instead of `body`: all was there before, a reference */
    size_t taken;            /* of either, by the compressor */
    struct buffer packed;    /* compressed, not sent */
};

TAILQ_HEAD(http_conn_list, http_conn);
TAILQ_HEAD(http_stream_list, http_stream);
TAILQ_HEAD(http_follow_list, http_follow);

/* The answer of the waiter that was woken last, for those who asked for the same: valid while there
 * are such, and the store has not changed. */
struct http_shared {
    bool kept;
    bool is_long;           /* there is none: it is a listing to be streamed to each */
    uint64_t applied_index; /* of the store that it is from */
    int (*run)(struct http_request *request, struct store_txn *txn,
               struct http_read_result *result);
    int (*piece)(struct http_request *request, struct store_txn *txn, struct http_piece *piece);
    struct buffer identity;
    struct buffer headers;
    struct http_body *body;
    struct http_read_result result; /* its body is empty */
};

/* An answer without an end: http_follow.c. */
struct http_follow {
    TAILQ_ENTRY(http_follow) entry;
    struct http_request *request;
    bool listed;
    bool chunked; /* else the answer ends with the connection */
    bool metrics; /* who begins it says so: http_metrics_turned sends to it */
};

/* A token bucket: http_limit.c. */
struct http_bucket {
    double tokens;
    uint64_t at_ns; /* when it had them, by uv_hrtime; 0: never used */
};

struct http_server {
    struct server *server;
    uv_loop_t *loop;
    uv_tcp_t listeners[HTTP_LISTENERS_MAX];
    struct shed *sheds[HTTP_LISTENERS_MAX]; /* NULL: its listener is closed */
    size_t listener_count;
    struct http_conn *conns;
    size_t conn_count;
    struct http_client *clients[256];
    struct http_client nobody; /* those whose address is not known */
    struct buffer spares[HTTP_SPARE_BUFFERS_MAX];
    size_t spare_count;
    struct buffer out;     /* an answer's header (and small body) is written together here */
    struct buffer packed;  /* a body is compressed here */
    struct buffer body;    /* what reads run into */
    struct buffer command; /* commands are encoded here */
    struct store_txn txn;  /* kept between reads, reset */
    bool txn_open;
    struct http_gzip_pool gzip;
    uint64_t gzip_turn_ms;                /* by uv_now: when bodies were compressed last, */
    uint64_t gzip_turn_ns;                /* and for how long since */
    uint64_t listing_turn_ms;             /* by uv_now: when listings were begun last, */
    uint64_t listing_turn_ns;             /* and for how long since */
    struct events *events;                /* http_event.c; NULL: none was fired */
    struct http_coordinates *coordinates; /* http_coordinate.c; NULL: none was told */
    unsigned archives;                    /* being taken in: HTTP_ARCHIVES_MAX */
    unsigned saves;                       /* being made or sent: HTTP_SAVES_MAX */
    uint64_t cached[HTTP_CACHED_MAX];     /* what ?cached was asked for: hashes */
    struct http_bucket rpc_bucket, read_bucket, write_bucket;
    struct http_timing *timings;    /* http_timing.c: owned; NULL: none yet */
    struct buffer response_headers; /* http_config.response_headers, as lines */
    char date[40];
    int64_t date_s;
    uint64_t random;

    /* A heap by heap_key_ms over the connections, and the timer of its first. */
    uv_timer_t timer;
    struct http_conn **deadlines;
    size_t deadline_count, deadline_capacity;
    uint64_t timer_due_ms;

    /* What is done a bounded time per turn of the loop: active while there is something. */
    uv_idle_t idle;
    struct http_conn_list woken;
    struct http_shared shared;
    struct http_stream_list streams;        /* with a snapshot, or their rest in memory */
    struct http_stream_list streams_queued; /* for HTTP_STREAMS_MAX */
    size_t stream_snapshots;
    uint64_t stream_copied_bytes;
    uv_timer_t stream_timer; /* looks for stalled ones, while there are any */
    struct http_follow_list follows;

    bool draining;
    uint64_t drain_deadline_ms;
    uv_timer_t drain_timer;
    void (*drain_done)(void *context);
    void *drain_context;
    bool freed;
    unsigned handles; /* open: listeners and timers */
};

/* --- http_conn.c --- */
/* The answer is out, or dropped: looks at what comes next on the connection. */
void http_conn_answered(struct http_conn *conn);
/* Sends `head` (copied if it must wait) and `body` (NULL: none; a reference is taken if it must
 * wait). Then comes the next request, or the next piece of the answer when it is a stream. */
void http_conn_send(struct http_conn *conn, struct slice head, struct http_body *body);
/* Takes the bytes over. NULL: no memory, nothing was taken. */
struct http_body *http_body_new(struct buffer *bytes);
struct http_body *http_body_ref(struct http_body *body);
void http_body_unref(struct http_body *body); /* NULL is accepted */
void http_conn_set_deadline(struct http_conn *conn, uint64_t after_ms);
/* Brackets a call into a handler, so that its answer does not start the next request below it. */
void http_conn_enter(struct http_conn *conn);
void http_conn_leave(struct http_conn *conn);
/* The answer is composed: the request and what its handler keeps are over. */
void http_request_finish(struct http_request *request);
/* Gives back what a waiting request does not need: head and body. */
void http_conn_shrink(struct http_conn *conn);
uint64_t http_random(struct http_server *http);
/* Feeds bytes as if they had been read: for http_conn.c and for fuzzing. */
void http_conn_feed(struct http_conn *conn, struct slice bytes);
/* A connection; until a socket is put in, answers go nowhere: for fuzzing. */
struct http_conn *http_conn_new(struct http_server *http);
/* Ends one that never got a socket. */
void http_conn_discard(struct http_conn *conn);
/* Port of the first listener, 0 without one: tests listen on port 0. */
uint16_t http_server_port(const struct http_server *http);

/* Its request waits for something to happen: a client that has closed its side meanwhile, or
 * before, is taken to be gone. */
bool http_conn_sleeps(const struct http_conn *conn);
/* Nothing comes behind the current request: the client has closed its side. */
bool http_conn_ends(const struct http_conn *conn);
/* Ends it now; what waits is cancelled. */
void http_conn_close(struct http_conn *conn);
/* Ends it after what is queued was written, and what still comes was read away. */
void http_conn_linger(struct http_conn *conn);
/* Frees it when nothing refers to it any more. */
void http_conn_maybe_free(struct http_conn *conn);
/* The answer is written: the connection is ready for the next request, or ends. */
void http_conn_next(struct http_conn *conn);
/* Reads no further until it is resumed; without a deadline. */
void http_conn_pause(struct http_conn *conn);
void http_conn_resume(struct http_conn *conn);
/* Drops the first `cut` bytes of the input. */
void http_conn_shift(struct http_conn *conn, size_t cut);
void http_conn_on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out);
void http_conn_on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer);

/* --- http_parse.c --- */
/* Takes requests off the input until one waits, or more input is needed. */
void http_conn_advance(struct http_conn *conn);
/* Answers what is no request with a status and a text, and ends the connection after it. */
void http_conn_refuse(struct http_conn *conn, int status, const char *text);

/* --- http_server.c --- */
/* One connection fewer of this client. */
void http_client_put(struct http_server *http, struct http_client *client);
/* The connection has no deadline any more. */
void http_deadline_remove(struct http_server *http, struct http_conn *conn);
/* Frees the server when nothing refers to it any more. */
void http_server_maybe_free(struct http_server *http);
/* A buffer to and from the stock. */
void http_spare_give(struct http_server *http, struct buffer *buffer);
void http_spare_take(struct http_server *http, struct buffer *buffer);

/* --- http_request.c --- */
/* What the head of a request says beyond what llhttp tells. */
struct http_head {
    unsigned hosts;
    unsigned headers;
    unsigned content_lengths;
    uint64_t content_length;
    unsigned transfer_encodings;
    bool chunked;
    struct slice expect;
    bool has_expect;
    bool close, keep_alive; /* tokens of Connection */
    bool bare_lf;           /* a line that ends in LF alone */
    bool has_accept_encoding;
    bool gzip; /* asked for in the first such line */
};
/* Checks the lines of a whole head (the first is the request line), stricter than
 * the parser: no bare CR, NUL, folded line or blank before a colon, so that no two parsers can see
 * two different requests in it. Returns 0, or the status to refuse it with and a text. */
int http_head_check(struct slice lines, struct http_head *out, const char **text);
/* Without blanks and tabs around it. */
struct slice http_trim(struct slice text);
/* Decodes the target into path and parameters. 0, 400 (bad escape in the path, or no path), or 500
 * for lack of memory. A bad escape in the query is remembered in private->bad_query. */
int http_request_parse_target(struct http_request *request, struct slice target);
bool http_path_printable(struct slice path);
/* Go's path.Clean, with a trailing slash kept. Appends to `out`. */
void http_path_clean(struct buffer *out, struct slice path);
/* Go's URL.EscapedPath. */
void http_path_escape(struct buffer *out, struct slice path);
/* Go's Values.Encode over all parameters: sorted by name. */
void http_params_encode(struct buffer *out, const struct http_request *request);
/* Go's strconv.ParseUint(text, 10, 64). On failure the error's text in `err`. */
bool http_parse_u64(struct slice text, uint64_t *out, struct errmsg *err);

/* --- http_acl.c --- */
/* Whether the request may be served; answers it if not. */
bool http_acl_check(struct http_request *request);

/* --- http_limit.c --- */
/* Whether limits.rpc_rate and limits.request_limits let the request pass; answers it if not. */
bool http_limit_check(struct http_request *request);

/* --- http_routes.c --- */
const struct http_route *http_route_find(struct slice path);
/* Answers, redirects or refuses before the body is read. True: go on to the handler. */
bool http_route_check(struct http_request *request);
void http_route_dispatch(struct http_request *request);
/* Largest body that the endpoint takes. */
uint64_t http_route_body_max(const struct http_request *request);
/* Before a body is collected: an archive to restore takes one of few places, and is spooled. False:
 * there is none, answered. */
bool http_archive_admit(struct http_request *request);
/* Gives the connection's place back, if it has one. */
void http_archive_release(struct http_conn *conn);
void http_reply_too_large(struct http_request *request, uint64_t bytes);

/* --- http_reply.c --- */
struct http_meta {
    bool index;
    uint64_t index_value;
    bool leader; /* known_leader and last_contact_ms without an index */
    bool known_leader;
    uint64_t last_contact_ms;
    const char *effective; /* NULL: no header */
};
/* Answers with everything; `meta` may be NULL, `body` is taken over if it is large. */
void http_reply_buffer(struct http_request *request, int status, const char *content_type,
                       const struct http_meta *meta, struct buffer *body);
/* The same with a body that others may send too; NULL: none. Borrows the caller's reference. */
void http_reply_body(struct http_request *request, int status, const char *content_type,
                     const struct http_meta *meta, struct http_body *body);
/* Composes the head of an answer whose length is not known into http->out: chunked, or until the
 * connection closes for a client of HTTP/1.0. */
void http_reply_open(struct http_request *request, int status, const char *content_type,
                     const struct http_meta *meta);
void http_reply_redirect(struct http_request *request, struct slice location);
/* 200 with a file of `bytes` bytes, which is taken over: one of http->saves until all is sent. */
void http_reply_file(struct http_request *request, const char *content_type,
                     const struct http_meta *meta, int fd, uint64_t bytes);
/* A refusal before there is a request: the connection closes after it. */
void http_reply_refuse(struct http_conn *conn, int status, const char *text);
/* 500 with the three headers that Consul puts on errors of some endpoints when flags say so. */
void http_reply_failure(struct http_request *request, unsigned flags, const char *text);

/* --- http_json.c --- */
/* Go's base64.StdEncoding: whole groups, padded, line ends skipped. Appends the bytes. False, with
 * Go's text, for anything else. */
bool json_base64_decode(struct buffer *out, struct slice text, struct errmsg *err);
void json_indent(struct buffer *out, struct slice json);
/* What Go's decoder takes and jansson refuses: bytes in strings that are no UTF-8, and escapes of
 * half a surrogate pair, become U+FFFD, one for each byte or escape. True: there were some, and the
 * text with the rest as it was is appended to `out`; else nothing is. */
bool json_repair(struct buffer *out, struct slice json);

/* --- http_read.c --- */
/* Consistency, Cache-Control, wait and index, in this order. False: answered with a 400. */
bool http_parse_common(struct http_request *request);
/* Wait and index alone. */
bool http_parse_wait(struct http_request *request);
/* Consistency and Cache-Control alone. */
bool http_parse_freshness(struct http_request *request);
/* As http_check_common, for an endpoint whose path ends in a name: without one, a 400 `missing`. */
bool http_check_named(struct http_request *request, unsigned flags, const char *missing);
/* False: another datacenter; answered with a 500. */
bool http_check_datacenter(struct http_request *request, unsigned flags);
/* Opens or renews the transaction that all reads share, one after the other: http->txn. The caller
 * resets it (store_read_reset) before it returns. */
int http_read_txn(struct http_server *http);
/* X-Cache, for a request with ?cached. */
void http_read_cache_header(struct http_request *request);
void http_read_cancel(struct http_request *request);
/* A parked request's time is over, or the server stops: answers with what there is. */
void http_read_expire(struct http_request *request);

/* What is told of an answer's freshness. */
struct http_meta http_read_meta(const struct http_request *request,
                                const struct http_read_result *result,
                                const struct replica_freshness *freshness);
/* Registers what to wait for; false: no memory. */
bool http_read_watch(struct http_request *request);
void http_read_unwatch(struct http_request *request);
/* Runs in the request's turn after a wake-up. */
void http_read_woken(struct http_request *request);
/* Whether a result with this index is to be waited beyond. */
bool http_read_blocks(const struct http_request *request, uint64_t index);
/* Goes to sleep; what to wait for is registered. */
void http_read_park(struct http_request *request);
/* Answers with a result that is there as a whole. */
void http_read_reply(struct http_request *request, struct http_read_result *result,
                     const struct replica_freshness *freshness);

/* --- http_turn.c --- */
void http_turn_init(struct http_server *http);
void http_turn_close(struct http_server *http, uv_close_cb closed);
/* There is something to do. */
void http_turn_start(struct http_server *http);
/* A stream is there, to be looked at now and then. */
void http_turn_tick(struct http_server *http);
/* A waiter's change has come: it is answered in its turn. */
void http_wake_add(struct http_request *request);
void http_wake_remove(struct http_request *request);
/* The answer that another waiter for the same got in this turn. */
bool http_shared_find(struct http_request *request);
/* Keeps an answer, just read, for the others. `body` may be NULL. */
void http_shared_keep(struct http_request *request, const struct http_read_result *result,
                      struct http_body *body);

/* Keeps that the answer is long. */
void http_shared_keep_long(struct http_request *request);

/* --- http_stream.c --- */
/* Reads and sends a listing in pieces, from its beginning: spec.piece. */
void http_stream_start(struct http_request *request, const struct replica_freshness *freshness);
void http_stream_cancel(struct http_request *request);
/* Sends an answer that is there as a whole, compressed piece by piece. True: it is the stream's to
 * end the request. False: nothing was done, it is to be sent as it is. */
bool http_stream_pack(struct http_request *request, int status, const char *content_type,
                      const struct http_meta *meta, struct http_body *body);
/* What was sent has been taken. */
void http_stream_sent(struct http_conn *conn);
bool http_stream_can_step(const struct http_stream *stream);
/* Whose turn it is to get a snapshot, if there is one left; NULL: nobody's. */
struct http_stream *http_stream_next(struct http_server *http);
/* One step, of bounded time; the stream may be gone after it. */
void http_stream_step(struct http_stream *stream);
/* Every HTTP_STREAM_TICK_MS: does the client read? */
void http_stream_tick(struct http_stream *stream);

/* --- http_follow.c --- */
/* Begins an answer of status 200 that goes on until the client leaves or http_follow_end. `follow`,
 * zeroed, is a part of the request's state; on_cancel and on_free call http_follow_forget.
 * content_type NULL: none. False, here and below: the client is cut off; the request may be gone.
 */
bool http_follow_begin(struct http_follow *follow, struct http_request *request,
                       const char *content_type);
/* Sends what has happened. A client that has left too much unread is cut off. */
bool http_follow_send(struct http_follow *follow, struct slice bytes);
/* Nothing will be sent to it any more. */
void http_follow_forget(struct http_follow *follow);
/* The orderly end; the request may be gone. */
void http_follow_end(struct http_follow *follow);
void http_follow_end_all(struct http_server *http);

/* --- http_kv.c --- */
void http_kv(struct http_request *request);
/* The checks that need no body. False: answered. */
bool http_kv_check(struct http_request *request);

/* {"LockIndex":..,"Key":..,"Flags":..,"Value":..,..} */
struct kv_entry;
void http_kv_put_entry(struct buffer *out, const struct kv_entry *entry);

/* --- http_coordinate.c --- */
struct http_coordinates;
void http_coordinates_free(struct http_coordinates *coordinates); /* NULL is accepted */

/* --- http_snapshot.c --- */
void http_snapshot(struct http_request *request);

/* --- http_file.c --- */
/* Takes `fd` over on success, and a place. NULL: no memory. */
struct http_file *http_file_new(struct http_conn *conn, int fd, uint64_t bytes);
/* What was sent of the connection's file has been taken. */
void http_file_sent(struct http_conn *conn);
/* How far it was read. */
uint64_t http_file_read_bytes(const struct http_file *file);
/* Gives the place back, once nothing reads from it. NULL is accepted. */
void http_file_free(struct http_file *file);

/* --- http_spool.c --- */
/* The body of the connection's request is about to come. Takes a place. NULL: no memory. */
struct http_spool *http_spool_new(struct http_conn *conn);
/* Some of it has come: add all there is, then step. */
void http_spool_add(struct http_spool *spool, const char *data, size_t size);
void http_spool_step(struct http_conn *conn);
/* All of it has come: the request is dispatched, or refused, when it is in the file. */
void http_spool_end(struct http_conn *conn);
/* The handler takes it from the connection. */
struct http_spool *http_spool_take(struct http_conn *conn);
int http_spool_fd(const struct http_spool *spool);
/* Closes the file alone, for a worker. */
void http_spool_shut(struct http_spool *spool);
/* A worker writes. */
bool http_spool_busy(const struct http_spool *spool);
/* Gives the place back, once nothing is written any more. NULL is accepted. */
void http_spool_free(struct http_spool *spool);
/* Where it lies: data_dir. */
const char *http_spool_folder(const struct server *server);
/* Closes a file without a name, which may take a while. -1 is accepted. */
void http_close_file(uv_loop_t *loop, int fd);

/* --- http_place.c --- */
/* All places among http->archives (else http->saves) are taken, and somebody wants one: closes a
 * connection that moves its archive too slowly, if there is one. True: there is a place now. */
bool http_place_reclaim(struct http_server *http, bool archives);
/* Whether a snapshot may be made; then it is one of http->saves. False: answered. */
bool http_save_admit(struct http_request *request);

/* --- http_timing.c --- */
/* The handler is about to be called; and the request is over. */
void http_timing_begin(struct http_request *request);
void http_timing_end(struct http_request *request);

/* --- http_txn.c --- */
void http_txn(struct http_request *request);

/* --- http_session.c --- */
/* Consul's error for an id that is no UUID; false and its text in `err`. An id that passes may
 * still not be a canonical UUID: then no session has it. */
bool http_session_id_check(struct slice id, struct errmsg *err);

#endif
