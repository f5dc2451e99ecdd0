/* /v1/kv: the checks in Consul's order, entries as JSON, listings, and commands. */

#include <assert.h>
#include <string.h>

#include "kv/kv.h"
#include "server/config.h"
#include "server/http/http_internal.h"
#include "server/server.h"

/* --- checks --- */

static bool kv_check_key(struct http_request *request)
{
    if (request->rest.size == 0) {
        http_reply_error(request, 400, "Missing key name");
        return false;
    }
    return true;
}

static bool kv_check_conflict(struct http_request *request, const char *const *names)
{
    unsigned present = 0;

    for (; *names != NULL; names++) {
        present += http_has_param(request, *names);
    }
    if (present < 2) {
        return true;
    }
    struct buffer text = {0};

    buffer_append_text(&text, "Conflicting flags: ");
    http_params_encode(&text, request);
    http_reply_text(request, 400, buffer_slice(&text));
    buffer_deinit(&text);
    return false;
}

/* A number that counts when its parameter is there; an empty one is bad. */
static bool kv_check_number(struct http_request *request, const char *name, uint64_t *out)
{
    struct errmsg err;

    *out = 0;
    if (!http_has_param(request, name) ||
        http_parse_u64(http_param_value(request, name), out, &err)) {
        return true;
    }
    http_reply_failure(request, 0, err.text);
    return false;
}

bool http_kv_check(struct http_request *request)
{
    static const char *const put_flags[] = {"cas", "acquire", "release", NULL};
    static const char *const delete_flags[] = {"recurse", "cas", NULL};
    uint64_t number;

    if (!http_parse_common(request)) {
        return false;
    }
    switch (request->method) {
    case HTTP_METHOD_GET:
        return http_has_param(request, "keys") || http_has_param(request, "recurse") ||
               kv_check_key(request);
    case HTTP_METHOD_PUT:
        return kv_check_key(request) && kv_check_conflict(request, put_flags) &&
               kv_check_number(request, "flags", &number) &&
               kv_check_number(request, "cas", &number);
    case HTTP_METHOD_DELETE:
        return kv_check_conflict(request, delete_flags) &&
               (http_has_param(request, "recurse") || kv_check_key(request)) &&
               kv_check_number(request, "cas", &number);
    case HTTP_METHOD_POST:
    case HTTP_METHOD_HEAD:
    case HTTP_METHOD_OPTIONS:
    case HTTP_METHOD_OTHER:
        break;
    }
    assert(false && "a method that the route does not let through");
    return false;
}

/* --- reading --- */

void http_kv_put_entry(struct buffer *out, const struct kv_entry *entry)
{
    char session[UUID_TEXT_BYTES + 1];

    buffer_append_text(out, "{\"LockIndex\":");
    json_put_u64(out, entry->lock_index);
    buffer_append_text(out, ",\"Key\":");
    json_put_string(out, entry->key);
    buffer_append_text(out, ",\"Flags\":");
    json_put_u64(out, entry->flags);
    buffer_append_text(out, ",\"Value\":");
    json_put_base64(out, entry->value);
    if (!uuid_is_zero(&entry->session)) {
        uuid_format(&entry->session, session);
        buffer_append_text(out, ",\"Session\":\"");
        buffer_append(out, session, UUID_TEXT_BYTES);
        buffer_append_char(out, '"');
    }
    buffer_append_text(out, ",\"CreateIndex\":");
    json_put_u64(out, entry->create_index);
    buffer_append_text(out, ",\"ModifyIndex\":");
    json_put_u64(out, entry->modify_index);
    buffer_append_char(out, '}');
}

static int kv_run_get(struct http_request *request, struct store_txn *txn,
                      struct http_read_result *result)
{
    struct kv_entry entry;
    const int rc = kv_get(txn, request->rest, &entry);

    if (rc == STORE_ENOTFOUND) {
        result->status = 404;
        return kv_index(txn, &result->index);
    }
    if (rc != 0) {
        return rc;
    }
    result->index = entry.modify_index;
    if (http_has_param(request, "raw")) {
        /* Never to be taken for a page by a browser (CVE-2020-25864). */
        result->content_type = "text/plain";
        http_add_header(request, "X-Content-Type-Options", "nosniff");
        http_add_header(request, "Content-Security-Policy", "sandbox");
        buffer_append_slice(&result->body, entry.value);
        return 0;
    }
    buffer_append_char(&result->body, '[');
    http_kv_put_entry(&result->body, &entry);
    buffer_append_char(&result->body, ']');
    return 0;
}

enum {
    KV_PIECE_COUNT_MAX = 2048,      /* entries that one piece of a listing looks at */
    KV_PIECE_TOMBSTONES_MAX = 8192, /* and deletions */
};

/* Goes on behind the piece's last key. */
static int kv_piece_scan(struct http_request *request, struct store_txn *txn,
                         struct http_piece *piece, struct kv_scan *scan)
{
    if (piece->last.data == NULL) {
        return kv_scan_begin(scan, txn, request->rest);
    }
    buffer_append_char(&piece->last, '\0'); /* The next string in byte order. */
    return piece->last.failed ? STORE_ENOMEM
                              : kv_scan_from(scan, txn, request->rest, buffer_slice(&piece->last));
}

/* Whether the piece is long enough; then it remembers where it ends. */
static bool kv_piece_full(struct http_piece *piece, size_t count, size_t began_bytes,
                          const struct kv_entry *entry)
{
    if (count < KV_PIECE_COUNT_MAX &&
        (piece->out == NULL || piece->out->size - began_bytes < HTTP_PIECE_BYTES)) {
        return false;
    }
    buffer_clear(&piece->last);
    buffer_append_slice(&piece->last, entry->key);
    (void)buffer_reserve(&piece->last, 1); /* An empty key is a place, too. */
    return true;
}

/* Index of a listing: the highest of what is listed and of what was deleted below the prefix. Of
 * many deletions each piece looks at some; the last one is done. */
static int kv_piece_index(struct http_request *request, struct store_txn *txn,
                          struct http_piece *piece)
{
    bool more = false;
    int rc = 0;

    if (piece->indexed) {
        piece->done = true;
        return 0;
    }
    if (request->rest.size == 0) {
        piece->index = 0; /* The whole table's. */
    } else {
        rc = kv_tombstone_index(txn, request->rest, &piece->last, KV_PIECE_TOMBSTONES_MAX,
                                &piece->index, &more);
    }
    if (rc != 0 || more) {
        return rc;
    }
    piece->done = true;
    return piece->index == 0 ? kv_index(txn, &piece->index) : 0;
}

/* From here on `last` is where the deletions go on. */
static int kv_piece_listed(struct http_request *request, struct http_piece *piece)
{
    piece->listed = true;
    buffer_clear(&piece->last);
    buffer_append_slice(&piece->last, request->rest);
    return piece->last.failed ? STORE_ENOMEM : 0;
}

/* Lists up to a piece's bounds. */
static int kv_piece_list_entries(struct http_request *request, struct store_txn *txn,
                                 struct http_piece *piece)
{
    const size_t began_bytes = piece->out == NULL ? 0 : piece->out->size;
    struct kv_scan scan;
    struct kv_entry entry;
    size_t count = 0;
    bool full = false;
    int rc = kv_piece_scan(request, txn, piece, &scan);

    if (rc != 0) {
        return rc;
    }
    while (!full && (rc = kv_scan_next(&scan, &entry)) == 0) {
        if (piece->out != NULL) {
            buffer_append_char(piece->out, piece->begun ? ',' : '[');
            http_kv_put_entry(piece->out, &entry);
        }
        piece->begun = true;
        if (entry.modify_index > piece->index) {
            piece->index = entry.modify_index;
        }
        full = kv_piece_full(piece, ++count, began_bytes, &entry);
    }
    kv_scan_end(&scan);
    if (rc != STORE_ENOTFOUND) {
        return rc == 0 && piece->last.failed ? STORE_ENOMEM : rc;
    }
    return kv_piece_listed(request, piece);
}

static int kv_piece_list(struct http_request *request, struct store_txn *txn,
                         struct http_piece *piece)
{
    int rc = piece->listed ? 0 : kv_piece_list_entries(request, txn, piece);

    if (rc == 0 && piece->listed) {
        rc = kv_piece_index(request, txn, piece);
    }
    piece->missing = piece->done && !piece->begun;
    if (piece->out != NULL && piece->done && piece->begun) {
        buffer_append_char(piece->out, ']');
    }
    return rc;
}

/* Cuts the name after the first separator beyond the prefix. */
static struct slice kv_fold(struct slice key, size_t prefix_bytes, struct slice separator)
{
    if (separator.size == 0 || key.size < prefix_bytes + separator.size) {
        return key;
    }
    const char *found =
        memmem(key.data + prefix_bytes, key.size - prefix_bytes, separator.data, separator.size);

    if (found == NULL) {
        return key;
    }
    return (struct slice){key.data, (size_t)(found - key.data) + separator.size};
}

static struct slice kv_separator(const struct http_request *request)
{
    const struct http_param *separator = http_param(request, "separator");

    if (separator == NULL) {
        separator = http_param(request, "seperator");
    }
    return separator == NULL ? SLICE_EMPTY : separator->value;
}

/* Lists a name, unless it is the one before: folded ones repeat. */
static void kv_put_name(struct http_piece *piece, struct slice name)
{
    if (piece->out == NULL || (piece->begun && slice_equal(name, buffer_slice(&piece->name)))) {
        return;
    }
    if (piece->begun) {
        buffer_append_char(piece->out, ',');
    }
    piece->begun = true;
    buffer_clear(&piece->name);
    buffer_append_slice(&piece->name, name);
    json_put_string(piece->out, name);
}

static int kv_piece_list_names(struct http_request *request, struct store_txn *txn,
                               struct http_piece *piece)
{
    const struct slice separator = kv_separator(request);
    const size_t began_bytes = piece->out == NULL ? 0 : piece->out->size;
    struct kv_scan scan;
    struct kv_entry entry;
    size_t count = 0;
    bool full = false;
    const bool first = piece->last.data == NULL;
    int rc = kv_piece_scan(request, txn, piece, &scan);

    if (rc != 0) {
        return rc;
    }
    if (first && piece->out != NULL) {
        buffer_append_char(piece->out, '[');
    }
    while (!full && (rc = kv_scan_next(&scan, &entry)) == 0) {
        kv_put_name(piece, kv_fold(entry.key, request->rest.size, separator));
        if (entry.modify_index > piece->index) {
            piece->index = entry.modify_index;
        }
        full = kv_piece_full(piece, ++count, began_bytes, &entry);
    }
    kv_scan_end(&scan);
    if (rc != STORE_ENOTFOUND || piece->name.failed) {
        return piece->last.failed || piece->name.failed ? STORE_ENOMEM : rc;
    }
    return kv_piece_listed(request, piece);
}

static int kv_piece_keys(struct http_request *request, struct store_txn *txn,
                         struct http_piece *piece)
{
    int rc = piece->listed ? 0 : kv_piece_list_names(request, txn, piece);

    if (rc == 0 && piece->listed) {
        rc = kv_piece_index(request, txn, piece);
    }
    piece->missing = piece->done && !piece->begun && request->rest.size > 0;
    if (piece->out != NULL && piece->done) {
        buffer_append_char(piece->out, ']');
    }
    return rc;
}

static void kv_read(struct http_request *request)
{
    struct http_read_spec spec = {
        .flags = HTTP_READ_INDEX_HEADERS,
        .watch_count = 1,
        .run = kv_run_get,
    };

    spec.watches[0].topic = STORE_TOPIC_KV;
    spec.watches[0].key = request->rest;
    if (http_has_param(request, "keys")) {
        spec.watches[0].prefix = true;
        spec.piece = kv_piece_keys;
    } else if (http_has_param(request, "recurse")) {
        spec.watches[0].prefix = true;
        spec.piece = kv_piece_list;
    }
    http_read_start(request, &spec);
}

/* --- writing --- */

static void kv_propose(struct http_request *request, enum command_kv_verb verb, uint64_t flags,
                       uint64_t cas, const struct uuid *session)
{
    struct buffer *command = &request->conn->http->command;

    buffer_clear(command);
    command_encode_kv(command, verb, request->rest, request->body, flags, cas, session);
    if (command->failed) {
        http_reply_failure(request, 0, store_strerror(STORE_ENOMEM));
        return;
    }
    http_write_start(request, buffer_slice(command), NULL);
}

/* Reads the session of acquire and release. False: answered. */
static bool kv_lock_session(struct http_request *request, const char *name, bool acquire,
                            struct uuid *session)
{
    const struct slice id = http_param_value(request, name);
    struct errmsg err;

    if (id.size == 0) {
        http_reply_failure(request, 0, "missing session");
        return false;
    }
    if (acquire && !http_session_id_check(id, &err)) {
        http_reply_failure(request, 0, err.text);
        return false;
    }
    if (uuid_parse(id, session)) {
        return true;
    }
    /* No session can have such an id. */
    if (acquire) {
        http_reply_error(request, 500, "invalid session \"%.*s\"", (int)id.size, id.data);
    } else {
        http_reply_json(request, SLICE_LITERAL("false"));
    }
    return false;
}

static void kv_put(struct http_request *request)
{
    const bool acquire = http_has_param(request, "acquire");
    const bool release = http_has_param(request, "release");
    struct uuid session = {0};
    uint64_t flags;
    uint64_t cas;

    if (!kv_check_number(request, "flags", &flags) || !kv_check_number(request, "cas", &cas) ||
        !http_check_datacenter(request, 0)) {
        return;
    }
    if (acquire || release) {
        if (kv_lock_session(request, acquire ? "acquire" : "release", acquire, &session)) {
            kv_propose(request, acquire ? COMMAND_KV_LOCK : COMMAND_KV_UNLOCK, flags, 0, &session);
        }
    } else if (http_has_param(request, "cas")) {
        kv_propose(request, COMMAND_KV_CAS, flags, cas, &session);
    } else {
        kv_propose(request, COMMAND_KV_SET, flags, 0, &session);
    }
}

static void kv_remove(struct http_request *request)
{
    const struct uuid none = {0};
    uint64_t cas;

    request->body = SLICE_EMPTY;
    if (!kv_check_number(request, "cas", &cas) || !http_check_datacenter(request, 0)) {
        return;
    }
    if (http_has_param(request, "recurse")) {
        kv_propose(request, COMMAND_KV_DELETE_PREFIX, 0, 0, &none);
    } else if (http_has_param(request, "cas")) {
        kv_propose(request, COMMAND_KV_DELETE_CAS, 0, cas, &none);
    } else {
        kv_propose(request, COMMAND_KV_DELETE, 0, 0, &none);
    }
}

void http_kv(struct http_request *request)
{
    if (request->method == HTTP_METHOD_GET) {
        kv_read(request);
    } else if (request->method == HTTP_METHOD_PUT) {
        kv_put(request);
    } else {
        kv_remove(request);
    }
}

const struct http_route http_routes_kv[] = {
    {"/v1/kv/", HTTP_METHOD_GET | HTTP_METHOD_PUT | HTTP_METHOD_DELETE, "OPTIONS,GET,PUT,DELETE",
     http_kv},
    {NULL, 0, NULL, NULL},
};
