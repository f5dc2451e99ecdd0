/* Requests: the strict check of their heads, and the way from a raw target to path and parameters,
 * with Go's net/url as the model. Pure: no sockets. */

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/http/http_internal.h"
#include "server/http/rune.h"

/* --- the head --- */

static bool is_token(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != 0 && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

struct slice http_trim(struct slice text)
{
    while (text.size > 0 && (text.data[0] == ' ' || text.data[0] == '\t')) {
        text.data++;
        text.size--;
    }
    while (text.size > 0 && (text.data[text.size - 1] == ' ' || text.data[text.size - 1] == '\t')) {
        text.size--;
    }
    return text;
}

/* Takes the next line off `lines`, without its end. False at the end, or (with *bad) when a CR
 * stands anywhere but before the LF. */
static bool head_line(struct slice *lines, struct slice *line, bool *bad, bool *bare_lf)
{
    const char *end = lines->size == 0 ? NULL : memchr(lines->data, '\n', lines->size);

    if (end == NULL) {
        return false;
    }
    const size_t size = (size_t)(end - lines->data);

    *line = (struct slice){lines->data, size};
    lines->data += size + 1;
    lines->size -= size + 1;
    if (line->size > 0 && line->data[line->size - 1] == '\r') {
        line->size--;
    } else {
        *bare_lf = true;
    }
    if (line->size > 0 && (memchr(line->data, '\r', line->size) != NULL ||
                           memchr(line->data, '\0', line->size) != NULL)) {
        *bad = true;
        return false;
    }
    return true;
}

/* What the client says of the connection's end. llhttp misses a "close" with a tab behind it
 * (nodejs/llhttp#866): whoever saw it before us would not expect another answer. */
static void head_connection(struct slice value, struct http_head *out)
{
    while (value.size > 0) {
        const char *comma = memchr(value.data, ',', value.size);
        const size_t size = comma == NULL ? value.size : (size_t)(comma - value.data);
        const struct slice token = http_trim((struct slice){value.data, size});
        const size_t skip = comma == NULL ? size : size + 1;

        out->close = out->close || slice_equal_nocase(token, SLICE_LITERAL("close"));
        out->keep_alive = out->keep_alive || slice_equal_nocase(token, SLICE_LITERAL("keep-alive"));
        value.data += skip;
        value.size -= skip;
    }
}

static bool head_content_length(struct slice value, uint64_t *out)
{
    uint64_t number = 0;

    if (value.size == 0) {
        return false;
    }
    for (size_t i = 0; i < value.size; i++) {
        const char c = value.data[i];

        if (c < '0' || c > '9' || number > (INT64_MAX - 9) / 10) {
            return false;
        }
        number = number * 10 + (uint64_t)(c - '0');
    }
    *out = number;
    return true;
}

/* What the framing of the message hangs on. */
static int head_header(struct slice name, struct slice value, struct http_head *out,
                       const char **text)
{
    if (slice_equal_nocase(name, SLICE_LITERAL("host"))) {
        out->hosts++;
    } else if (slice_equal_nocase(name, SLICE_LITERAL("content-length"))) {
        out->content_lengths++;
        if (out->content_lengths > 1 || !head_content_length(value, &out->content_length)) {
            *text = "400 Bad Request: bad Content-Length";
            return 400;
        }
    } else if (slice_equal_nocase(name, SLICE_LITERAL("transfer-encoding"))) {
        out->transfer_encodings++;
        out->chunked = true;
        if (out->transfer_encodings > 1 || !slice_equal_nocase(value, SLICE_LITERAL("chunked"))) {
            *text = "Unsupported transfer encoding";
            return 501;
        }
    } else if (slice_equal_nocase(name, SLICE_LITERAL("expect"))) {
        out->has_expect = true;
        out->expect = value;
    } else if (slice_equal_nocase(name, SLICE_LITERAL("connection"))) {
        head_connection(value, out);
    } else if (slice_equal_nocase(name, SLICE_LITERAL("accept-encoding")) &&
               !out->has_accept_encoding) {
        out->has_accept_encoding = true;
        out->gzip = http_gzip_accepted(value);
    }
    return 0;
}

int http_head_check(struct slice lines, struct http_head *out, const char **text)
{
    struct slice line;
    bool bad = false;
    bool bare_lf = false;

    memset(out, 0, sizeof(*out));
    *text = "400 Bad Request: malformed header";
    if (!head_line(&lines, &line, &bad, &bare_lf)) {
        return 400; /* The request line. */
    }
    while (head_line(&lines, &line, &bad, &bare_lf) && line.size > 0) {
        const char *colon = memchr(line.data, ':', line.size);

        out->headers++;
        if (out->headers > HTTP_HEADERS_COUNT_MAX) {
            *text = "431 Request Header Fields Too Large";
            return 431;
        }
        if (colon == NULL || colon == line.data) {
            return 400;
        }
        const struct slice name = {line.data, (size_t)(colon - line.data)};

        for (size_t i = 0; i < name.size; i++) {
            if (!is_token((unsigned char)name.data[i])) {
                return 400; /* Folded lines and blanks before the colon end here too. */
            }
        }
        const struct slice value = http_trim((struct slice){colon + 1, line.size - name.size - 1});
        const int status = head_header(name, value, out, text);

        if (status != 0) {
            return status;
        }
    }
    if (bad) {
        return 400;
    }
    out->bare_lf = bare_lf;
    if (out->chunked && out->content_lengths > 0) {
        *text = "400 Bad Request: both Content-Length and Transfer-Encoding";
        return 400;
    }
    return 0;
}

struct slice http_header(const struct http_request *request, const char *name)
{
    const struct http_conn *conn = request->conn;
    const struct slice wanted = slice_from_text(name);
    struct slice line;
    bool bad = false;
    bool bare_lf = false;

    /* Looked up seldom, and never many times: no table is built. The head is gone while a request
     * waits. */
    if (conn->head_bytes == 0 || conn->in.size < conn->head_bytes) {
        return SLICE_EMPTY;
    }
    struct slice lines = {conn->in.data, conn->head_bytes};

    if (!head_line(&lines, &line, &bad, &bare_lf)) {
        return SLICE_EMPTY;
    }
    while (head_line(&lines, &line, &bad, &bare_lf) && line.size > 0) {
        if (line.size > wanted.size && line.data[wanted.size] == ':' &&
            slice_equal_nocase((struct slice){line.data, wanted.size}, wanted)) {
            return http_trim(
                (struct slice){line.data + wanted.size + 1, line.size - wanted.size - 1});
        }
    }
    return SLICE_EMPTY;
}

/* --- the target --- */

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }
    return -1;
}

/* Decodes `in` to `to`, which has in.size bytes. False on a malformed escape. */
static bool unescape(struct slice in, bool plus_is_blank, char *to, size_t *size)
{
    size_t out = 0;

    for (size_t i = 0; i < in.size; i++) {
        char c = in.data[i];

        if (c == '%') {
            const int high = i + 2 < in.size ? hex_value(in.data[i + 1]) : -1;
            const int low = i + 2 < in.size ? hex_value(in.data[i + 2]) : -1;

            if (high < 0 || low < 0) {
                return false;
            }
            c = (char)(high * 16 + low);
            i += 2;
        } else if (c == '+' && plus_is_blank) {
            c = ' ';
        }
        to[out++] = c;
    }
    *size = out;
    return true;
}

/* Takes scheme and authority off an absolute target. */
static struct slice target_origin(struct slice target)
{
    static const char *const schemes[] = {"http://", "https://"};

    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        const struct slice scheme = slice_from_text(schemes[i]);

        if (target.size >= scheme.size &&
            slice_equal_nocase((struct slice){target.data, scheme.size}, scheme)) {
            size_t at = scheme.size;

            while (at < target.size && target.data[at] != '/' && target.data[at] != '?') {
                at++;
            }
            if (at == target.size || target.data[at] == '?') {
                return SLICE_LITERAL("/"); /* A query without a path asks nothing of us. */
            }
            return (struct slice){target.data + at, target.size - at};
        }
    }
    return target;
}

/* Cuts the next parameter off `query`: Go 1.14 takes both & and ; as separators. */
static struct slice query_cut(struct slice *query)
{
    size_t at = 0;

    while (at < query->size && query->data[at] != '&' && query->data[at] != ';') {
        at++;
    }
    const struct slice pair = {query->data, at};
    const size_t skip = at < query->size ? at + 1 : at;

    query->data += skip;
    query->size -= skip;
    return pair;
}

/* Decodes the parameters; their text goes to `to`. */
static void target_parse_query(struct http_request *request, struct slice query, char *to)
{
    while (query.size > 0) {
        const struct slice pair = query_cut(&query);
        const char *equals = pair.size == 0 ? NULL : memchr(pair.data, '=', pair.size);
        const size_t name_size = equals == NULL ? pair.size : (size_t)(equals - pair.data);
        struct http_param param = {.has_value = equals != NULL};

        if (pair.size == 0) {
            continue;
        }
        if (request->param_count == HTTP_PARAMS_MAX) {
            request->private->bad_query = true;
            return;
        }
        param.name.data = to;
        param.value.data = "";
        if (!unescape((struct slice){pair.data, name_size}, true, to, &param.name.size)) {
            request->private->bad_query = true;
            return;
        }
        to += param.name.size;
        if (equals != NULL) {
            param.value.data = to;
            if (!unescape((struct slice){equals + 1, pair.size - name_size - 1}, true, to,
                          &param.value.size)) {
                request->private->bad_query = true;
                return;
            }
            to += param.value.size;
        }
        request->params[request->param_count++] = param;
    }
}

/* Makes the block that parameters and decoded text live in: kept from request to request. */
static bool request_reserve_text(struct http_request_private *private, size_t size)
{
    if (private->text_bytes >= size && private->text != NULL) {
        return true;
    }
    free(private->text);
    private->text = malloc(size);
    private->text_bytes = private->text == NULL ? 0 : size;
    return private->text != NULL;
}

int http_request_parse_target(struct http_request *request, struct slice target)
{
    struct http_request_private *private = request->private;
    struct slice query = SLICE_EMPTY;
    size_t count = 0;

    target = target_origin(target);
    if (target.size == 0 || (target.data[0] != '/' && request->method != HTTP_METHOD_OPTIONS)) {
        return 400;
    }
    for (size_t i = 0; i < target.size; i++) {
        if ((unsigned char)target.data[i] < 0x20 || target.data[i] == 0x7f) {
            return 400;
        }
    }
    const char *mark = memchr(target.data, '?', target.size);

    if (mark != NULL) {
        query = (struct slice){mark + 1, target.size - (size_t)(mark - target.data) - 1};
        target.size = (size_t)(mark - target.data);
        count = 1;
        for (size_t i = 0; i < query.size && count < HTTP_PARAMS_MAX; i++) {
            count += query.data[i] == '&' || query.data[i] == ';';
        }
    }
    const size_t params_bytes = count * sizeof(struct http_param);

    if (!request_reserve_text(private, params_bytes + target.size + query.size + 1)) {
        return 500;
    }
    char *path = private->text + params_bytes;

    request->params = (struct http_param *)(void *)private->text;
    request->param_count = 0;
    request->path.data = path;
    if (!unescape(target, false, path, &request->path.size)) {
        return 400;
    }
    target_parse_query(request, query, path + request->path.size);
    assert(request->param_count <= count);
    request->pretty = http_has_param(request, "pretty");
    return 0;
}

const struct http_param *http_param(const struct http_request *request, const char *name)
{
    const size_t size = strlen(name);

    for (size_t i = 0; i < request->param_count; i++) {
        const struct http_param *param = &request->params[i];

        if (param->name.size == size && memcmp(param->name.data, name, size) == 0) {
            return param;
        }
    }
    return NULL;
}

bool http_has_param(const struct http_request *request, const char *name)
{
    return http_param(request, name) != NULL;
}

struct slice http_param_value(const struct http_request *request, const char *name)
{
    const struct http_param *param = http_param(request, name);

    return param == NULL ? SLICE_EMPTY : param->value;
}

/* --- paths --- */

/* Control characters, blanks other than ' ', formatting characters and private use: what Go's
 * unicode.IsPrint refuses, as ranges. Unassigned code points pass: they may be letters by now. */
static bool rune_printable(uint32_t rune)
{
    static const struct {
        uint32_t first, last;
    } refused[] = {
        {0x0000, 0x001f},   {0x007f, 0x00a0},    {0x00ad, 0x00ad},   {0x0600, 0x0605},
        {0x061c, 0x061c},   {0x06dd, 0x06dd},    {0x070f, 0x070f},   {0x08e2, 0x08e2},
        {0x1680, 0x1680},   {0x180e, 0x180e},    {0x2000, 0x200f},   {0x2028, 0x202f},
        {0x205f, 0x206f},   {0x3000, 0x3000},    {0xd800, 0xf8ff},   {0xfeff, 0xfeff},
        {0xfff9, 0xfffb},   {0xfffe, 0xffff},    {0x110bd, 0x110bd}, {0x1d173, 0x1d17a},
        {0xe0001, 0xe007f}, {0xf0000, RUNE_MAX},
    };

    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        if (rune >= refused[i].first && rune <= refused[i].last) {
            return false;
        }
    }
    return true;
}

bool http_path_printable(struct slice path)
{
    size_t at = 0;

    while (at < path.size) {
        if (path.data[at] >= ' ' && path.data[at] < 0x7f) {
            at++;
        } else if (!rune_printable(rune_next(path, &at))) { /* RUNE_BAD is: so Go has it. */
            return false;
        }
    }
    return true;
}

void http_path_clean(struct buffer *out, struct slice path)
{
    const size_t start = out->size;
    size_t at = 0;

    while (at < path.size) {
        size_t end;

        while (at < path.size && path.data[at] == '/') {
            at++;
        }
        for (end = at; end < path.size && path.data[end] != '/'; end++) {
        }
        const struct slice segment = {path.data + at, end - at};

        at = end;
        if (segment.size == 0 || slice_equal(segment, SLICE_LITERAL("."))) {
            continue;
        }
        if (slice_equal(segment, SLICE_LITERAL(".."))) {
            while (out->size > start && out->data[--out->size] != '/') {
            }
            continue;
        }
        buffer_append_char(out, '/');
        buffer_append_slice(out, segment);
    }
    if (out->size == start || (path.size > 0 && path.data[path.size - 1] == '/')) {
        buffer_append_char(out, '/');
    }
}

static bool is_unreserved(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.' || c == '~';
}

static void put_escaped(struct buffer *out, char c)
{
    static const char hex[] = "0123456789ABCDEF";
    const unsigned char byte = (unsigned char)c;
    const char text[3] = {'%', hex[byte >> 4], hex[byte & 15]};

    buffer_append(out, text, sizeof(text));
}

void http_path_escape(struct buffer *out, struct slice path)
{
    for (size_t i = 0; i < path.size; i++) {
        const char c = path.data[i];

        if (is_unreserved(c) || (c != '\0' && strchr("$&+,/:;=@", c) != NULL)) {
            buffer_append_char(out, c);
        } else {
            put_escaped(out, c);
        }
    }
}

static void query_escape(struct buffer *out, struct slice text)
{
    for (size_t i = 0; i < text.size; i++) {
        const char c = text.data[i];

        if (is_unreserved(c)) {
            buffer_append_char(out, c);
        } else if (c == ' ') {
            buffer_append_char(out, '+');
        } else {
            put_escaped(out, c);
        }
    }
}

void http_params_encode(struct buffer *out, const struct http_request *request)
{
    size_t order[HTTP_PARAMS_MAX];

    /* By name; equal names stay in the order given. */
    for (size_t i = 0; i < request->param_count; i++) {
        size_t at = i;

        while (at > 0 &&
               slice_compare(request->params[order[at - 1]].name, request->params[i].name) > 0) {
            order[at] = order[at - 1];
            at--;
        }
        order[at] = i;
    }
    for (size_t i = 0; i < request->param_count; i++) {
        const struct http_param *param = &request->params[order[i]];

        if (i > 0) {
            buffer_append_char(out, '&');
        }
        query_escape(out, param->name);
        buffer_append_char(out, '=');
        query_escape(out, param->value);
    }
}

void http_put_quoted(struct buffer *out, struct slice text)
{
    buffer_append_char(out, '"');
    for (size_t i = 0; i < text.size; i++) {
        const unsigned char c = (unsigned char)text.data[i];

        if (c == '"' || c == '\\') {
            buffer_append_char(out, '\\');
            buffer_append_char(out, (char)c);
        } else if (c == '\n' || c == '\r' || c == '\t') {
            buffer_append_text(out, c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t");
        } else if (c < 0x20 || c == 0x7f) {
            buffer_printf(out, "\\x%02x", c);
        } else {
            buffer_append_char(out, (char)c);
        }
    }
    buffer_append_char(out, '"');
}

bool http_parse_u64(struct slice text, uint64_t *out, struct errmsg *err)
{
    uint64_t value = 0;
    const char *problem = text.size == 0 ? "invalid syntax" : NULL;

    for (size_t i = 0; i < text.size && problem == NULL; i++) {
        const uint64_t digit = (uint64_t)(text.data[i] - '0');

        if (text.data[i] < '0' || text.data[i] > '9') {
            problem = "invalid syntax";
        } else if (value > (UINT64_MAX - digit) / 10) {
            problem = "value out of range";
            /* Digits to the end, or it is bad syntax after all. */
            for (size_t j = i; j < text.size; j++) {
                if (text.data[j] < '0' || text.data[j] > '9') {
                    problem = "invalid syntax";
                }
            }
        } else {
            value = value * 10 + digit;
        }
    }
    if (problem != NULL) {
        struct buffer quoted = {0};

        http_put_quoted(&quoted, text);
        (void)errmsg_set(err, 0, "strconv.ParseUint: parsing %.*s: %s",
                         quoted.size < 300 ? (int)quoted.size : 300,
                         quoted.data == NULL ? "" : quoted.data, problem);
        buffer_deinit(&quoted);
        return false;
    }
    *out = value;
    return true;
}
