#include "server/cli/cli_client.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <llhttp.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "kv/slice.h"

const char cli_client_usage[] =
    "HTTP API Options\n\n"
    "  -http-addr=<address>   Where the server is (CONSUL_HTTP_ADDR); 127.0.0.1:8500\n"
    "  -token=<value>         Token to send (CONSUL_HTTP_TOKEN)\n"
    "  -token-file=<value>    File that holds it (CONSUL_HTTP_TOKEN_FILE)\n"
    "  -datacenter=<value>    Name of the datacenter\n"
    "  -stale                 Any server may answer, not the leader alone\n";

/* --- flags --- */

static struct cli_flag *flags_find(struct cli_flag *flags, size_t count, const char *name,
                                   size_t size)
{
    for (size_t i = 0; i < count; i++) {
        if (strlen(flags[i].name) == size && strncmp(flags[i].name, name, size) == 0) {
            return &flags[i];
        }
    }
    return NULL;
}

static bool flag_is_bool(const char *text)
{
    static const char *const words[] = {"1", "t", "T",     "TRUE",  "true",  "True", "0",
                                        "f", "F", "FALSE", "false", "False", NULL};

    for (size_t i = 0; words[i] != NULL; i++) {
        if (strcmp(text, words[i]) == 0) {
            return true;
        }
    }
    return false;
}

int cli_flags_parse(int argc, char **argv, struct cli_flag *flags, size_t count, struct errmsg *err)
{
    int i = 0;

    while (i < argc && argv[i][0] == '-' && argv[i][1] != 0) {
        const char *name = argv[i] + (argv[i][1] == '-' ? 2 : 1);
        const size_t size = strcspn(name, "=");
        struct cli_flag *flag;

        if (strcmp(argv[i], "--") == 0) {
            return i + 1;
        }
        flag = flags_find(flags, count, name, size);
        if (flag == NULL) {
            return errmsg_set(err, -1, "flag provided but not defined: -%.*s", (int)size, name);
        }
        i++;
        if (name[size] == '=') {
            flag->value = name + size + 1;
        } else if (flag->boolean) {
            flag->value = "true";
        } else if (i < argc) {
            flag->value = argv[i++];
        } else {
            return errmsg_set(err, -1, "flag needs an argument: -%s", flag->name);
        }
        if (flag->boolean && !flag_is_bool(flag->value)) {
            return errmsg_set(err, -1, "invalid boolean value \"%s\" for -%s: parse error",
                              flag->value, flag->name);
        }
    }
    return i;
}

const char *cli_flag(const struct cli_flag *flags, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(flags[i].name, name) == 0) {
            return flags[i].value;
        }
    }
    return NULL;
}

bool cli_flag_on(const struct cli_flag *flags, size_t count, const char *name)
{
    const char *value = cli_flag(flags, count, name);

    return value != NULL && strchr("1tT", value[0]) != NULL && value[0] != 0;
}

/* --- where the server is --- */

struct client_address {
    char text[300]; /* "host:port", or a socket's path */
    char host[256];
    char port[32];
    bool unix_socket;
};

static int client_find(const struct cli_flag *flags, size_t count, struct client_address *out,
                       struct errmsg *err)
{
    const char *address = cli_flag(flags, count, "http-addr");
    const char *ssl = getenv("CONSUL_HTTP_SSL");
    const char *colon;
    size_t host_size;

    if (address == NULL || address[0] == 0) {
        address = getenv("CONSUL_HTTP_ADDR");
    }
    if (address == NULL || address[0] == 0) {
        address = "127.0.0.1:8500";
    }
    if (strncasecmp(address, "https://", 8) == 0 ||
        (ssl != NULL && flag_is_bool(ssl) && strchr("1tT", ssl[0]) != NULL)) {
        return errmsg_set(err, -1, "https is not supported, name an http address");
    }
    memset(out, 0, sizeof(*out));
    out->unix_socket = strncasecmp(address, "unix://", 7) == 0;
    address += out->unix_socket || strncasecmp(address, "http://", 7) == 0 ? 7 : 0;
    (void)snprintf(out->text, sizeof(out->text), "%s", address);
    if (out->unix_socket) {
        return 0;
    }
    if (strstr(address, "://") != NULL) {
        return errmsg_set(err, -1, "Unknown protocol scheme: %.*s", (int)strcspn(address, ":"),
                          address);
    }
    colon = strrchr(address, ':');
    if (colon != NULL && strchr(colon, ']') != NULL) {
        colon = NULL; /* "[::1]" has no port. */
    }
    host_size = colon != NULL ? (size_t)(colon - address) : strlen(address);
    if (address[0] == '[' && host_size > 1 && address[host_size - 1] == ']') {
        address++;
        host_size -= 2;
    }
    if (host_size >= sizeof(out->host)) {
        return errmsg_set(err, -1, "the address is too long: %.100s", address);
    }
    memcpy(out->host, address, host_size);
    if (host_size == 0) {
        (void)strcpy(out->host, "localhost"); /* ":8500", as Go dials it. */
    }
    (void)snprintf(out->port, sizeof(out->port), "%s", colon != NULL ? colon + 1 : "80");
    return 0;
}

/* The token of the flags or the environment; empty: none. */
static int client_token(const struct cli_flag *flags, size_t count, char *out, struct errmsg *err)
{
    const char *token = cli_flag(flags, count, "token");
    const char *path = cli_flag(flags, count, "token-file");
    ssize_t size = 0;

    out[0] = 0;
    if (token == NULL && path == NULL) {
        token = getenv("CONSUL_HTTP_TOKEN");
        path = token == NULL ? getenv("CONSUL_HTTP_TOKEN_FILE") : NULL;
    }
    if (token != NULL) {
        (void)snprintf(out, CLI_TOKEN_BYTES_MAX, "%s", token);
    } else if (path != NULL && path[0] != 0) {
        const int fd = open(path, O_RDONLY | O_CLOEXEC);

        size = fd < 0 ? -1 : read(fd, out, CLI_TOKEN_BYTES_MAX - 1);
        if (fd >= 0) {
            (void)close(fd); /* Only read from. */
        }
        if (size < 0) {
            return errmsg_set_errno(err, -1, "Error loading token file: open %.200s", path);
        }
        out[size] = 0;
    }
    out[strcspn(out, "\r\n")] = 0;
    return 0;
}

/* --- the connection --- */

static int client_connect_unix(const char *path)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int fd;

    if (strlen(path) >= sizeof(name.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -1;
    }
    memcpy(name.sun_path, path, strlen(path));
    if (connect(fd, (struct sockaddr *)&name, sizeof(name)) != 0) {
        const int error = errno;

        (void)close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

static int client_connect_tcp(const struct client_address *address, struct errmsg *err)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *list;
    int fd = -1;
    int rc = getaddrinfo(address->host, address->port, &hints, &list);

    if (rc != 0) {
        return errmsg_set(err, -1, "dial tcp: lookup %.200s: %s", address->host, gai_strerror(rc));
    }
    for (const struct addrinfo *it = list; it != NULL && fd < 0; it = it->ai_next) {
        fd = socket(it->ai_family, it->ai_socktype | SOCK_CLOEXEC, it->ai_protocol);
        if (fd < 0) {
            rc = errno;
        } else if (connect(fd, it->ai_addr, it->ai_addrlen) != 0) {
            rc = errno;
            (void)close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(list);
    errno = rc;
    return fd >= 0 ? fd : errmsg_set_errno(err, -1, "dial tcp %.200s: connect", address->text);
}

static int client_connect(const struct client_address *address, struct errmsg *err)
{
    const struct timeval timeout = {.tv_sec = CLI_TIMEOUT_S};
    int fd;

    if (address->unix_socket) {
        fd = client_connect_unix(address->text);
        if (fd < 0) {
            return errmsg_set_errno(err, -1, "dial unix %.120s: connect", address->text);
        }
    } else {
        fd = client_connect_tcp(address, err);
    }
    if (fd >= 0) {
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
    }
    return fd;
}

static bool client_write(int fd, struct slice bytes)
{
    while (bytes.size > 0) {
        const ssize_t count = send(fd, bytes.data, bytes.size, MSG_NOSIGNAL);

        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count <= 0) {
            return false;
        }
        bytes.data += count;
        bytes.size -= (size_t)count;
    }
    return true;
}

/* --- the answer --- */

struct client_parse {
    struct cli_answer *answer;
    bool complete;
};

static int client_on_body(llhttp_t *parser, const char *data, size_t size)
{
    struct client_parse *parse = parser->data;

    if (parse->answer->body.size + size > CLI_ANSWER_BYTES_MAX) {
        return -1;
    }
    buffer_append(&parse->answer->body, data, size);
    return parse->answer->body.failed ? -1 : 0;
}

static int client_on_complete(llhttp_t *parser)
{
    struct client_parse *parse = parser->data;

    parse->complete = true;
    parse->answer->status = parser->status_code;
    return HPE_PAUSED;
}

static bool client_read(int fd, struct cli_answer *answer)
{
    struct client_parse parse = {.answer = answer};
    llhttp_settings_t settings;
    llhttp_t parser;
    char bytes[16 * 1024];

    llhttp_settings_init(&settings);
    settings.on_body = client_on_body;
    settings.on_message_complete = client_on_complete;
    llhttp_init(&parser, HTTP_RESPONSE, &settings);
    parser.data = &parse;
    while (!parse.complete) {
        const ssize_t count = recv(fd, bytes, sizeof(bytes), 0);

        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count < 0) {
            return false;
        }
        const llhttp_errno_t rc =
            count == 0 ? llhttp_finish(&parser) : llhttp_execute(&parser, bytes, (size_t)count);

        if (count == 0 || (rc != HPE_OK && rc != HPE_PAUSED)) {
            break;
        }
    }
    return parse.complete;
}

/* --- a request --- */

void cli_put_escaped(struct buffer *out, const char *text)
{
    for (; *text != 0; text++) {
        const char c = *text;

        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
            strchr("-_.~", c) != NULL) {
            buffer_append_char(out, c);
        } else {
            buffer_printf(out, "%%%02X", (unsigned)(unsigned char)c);
        }
    }
}

static void client_put_target(struct buffer *out, const struct cli_flag *flags, size_t count,
                              const char *method, const char *path)
{
    const char *datacenter = cli_flag(flags, count, "datacenter");
    char mark = strchr(path, '?') != NULL ? '&' : '?';

    buffer_append_text(out, path);
    if (datacenter != NULL && datacenter[0] != 0) {
        buffer_append_char(out, mark);
        buffer_append_text(out, "dc=");
        cli_put_escaped(out, datacenter);
        mark = '&';
    }
    if (strcmp(method, "GET") == 0 && cli_flag_on(flags, count, "stale")) {
        buffer_append_char(out, mark);
        buffer_append_text(out, "stale=");
    }
}

/* Go's url.Error: the method with one capital, the address, and what went wrong. */
static int client_fail(struct errmsg *err, const char *method, const struct client_address *address,
                       const struct buffer *target, const char *what)
{
    return errmsg_set(err, -1, "%c%.8s \"http://%.120s%.*s\": %.180s", method[0],
                      strcmp(method, "GET") == 0      ? "et"
                      : strcmp(method, "PUT") == 0    ? "ut"
                      : strcmp(method, "DELETE") == 0 ? "elete"
                                                      : "ost",
                      address->unix_socket ? "unix" : address->text,
                      (int)(target->size < 100 ? target->size : 100), target->data, what);
}

static void client_put_request(struct buffer *out, const struct client_address *address,
                               const char *method, const struct buffer *target, struct slice token,
                               struct slice body)
{
    buffer_printf(out, "%s ", method);
    buffer_append_slice(out, buffer_slice(target));
    buffer_printf(out, " HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n",
                  address->unix_socket ? "localhost" : address->text);
    if (token.size > 0) {
        buffer_printf(out, "X-Consul-Token: %.*s\r\n", (int)token.size, token.data);
    }
    buffer_printf(out, "Content-Length: %zu\r\n\r\n", body.size);
    buffer_append_slice(out, body);
}

static int client_exchange(const struct client_address *address, const char *method,
                           const struct buffer *target, const struct buffer *request,
                           struct cli_answer *out, struct errmsg *err)
{
    struct errmsg reason = {""};
    const int fd = client_connect(address, &reason);
    bool done;

    if (fd < 0) {
        return client_fail(err, method, address, target, reason.text);
    }
    done = client_write(fd, buffer_slice(request)) && client_read(fd, out);
    (void)close(fd); /* All was read, or nothing will be. */
    if (!done) {
        return client_fail(err, method, address, target, "EOF");
    }
    if (out->status != 200) {
        return errmsg_set(err, -1, "Unexpected response code: %d (%.*s)", out->status,
                          (int)(out->body.size < 400 ? out->body.size : 400),
                          out->body.data == NULL ? "" : out->body.data);
    }
    return 0;
}

int cli_ask(const struct cli_flag *flags, size_t count, const char *method, const char *path,
            struct slice body, struct cli_answer *out, struct errmsg *err)
{
    struct client_address address = {.text = ""};
    struct buffer target = {0};
    struct buffer request = {0};
    char token[CLI_TOKEN_BYTES_MAX] = "";
    int rc;

    assert(path[0] == '/');
    memset(out, 0, sizeof(*out));
    if (client_find(flags, count, &address, err) != 0 ||
        client_token(flags, count, token, err) != 0) {
        return -1;
    }
    client_put_target(&target, flags, count, method, path);
    client_put_request(&request, &address, method, &target, slice_from_text(token), body);
    rc = target.failed || request.failed
             ? errmsg_set(err, -1, "out of memory")
             : client_exchange(&address, method, &target, &request, out, err);
    buffer_deinit(&target);
    buffer_deinit(&request);
    return rc;
}
