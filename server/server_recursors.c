#include "server/server_recursors.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/config.h"
#include "server/log.h"

enum {
    RECURSOR_RETRY_MS = 10000,
    ADDRESS_BYTES_MAX = 64, /* "[ip6]:port" */
};

struct recursor {
    bool due; /* it is a name that is to be looked up */
    uint16_t port;
    uint64_t due_ms;
    char host[CONFIG_HOST_BYTES_MAX + 1]; /* empty: it is an address, or there is none */
    char address[ADDRESS_BYTES_MAX];      /* the last one found; empty: none */
};

struct server_recursors {
    uv_loop_t *loop;
    struct dns_server *dns;
    struct recursor list[DNS_RECURSORS_MAX]; /* as in the configuration */
    uv_getaddrinfo_t lookup;
    bool looking, freed;
    bool void_lookup; /* what is looked up is of an older list */
    size_t index;     /* whose name it is */
};

struct server_recursors *server_recursors_new(uv_loop_t *loop)
{
    struct server_recursors *recursors = calloc(1, sizeof(*recursors));

    if (recursors != NULL) {
        recursors->loop = loop;
        recursors->lookup.data = recursors;
    }
    return recursors;
}

static const struct recursor *recursor_find(const struct recursor *list, const struct recursor *one)
{
    for (size_t i = 0; i < DNS_RECURSORS_MAX; i++) {
        if (strcmp(list[i].host, one->host) == 0 && list[i].port == one->port) {
            return &list[i];
        }
    }
    return NULL;
}

void server_recursors_take(struct server_recursors *recursors, struct dns_config *config)
{
    struct recursor old[DNS_RECURSORS_MAX];

    memcpy(old, recursors->list, sizeof(old));
    memset(recursors->list, 0, sizeof(recursors->list));
    recursors->void_lookup = recursors->looking;
    for (size_t i = 0; i < config->recursor_count; i++) {
        struct recursor *recursor = &recursors->list[i];

        if (!config_recursor_split(config->recursors[i], recursor->host, &recursor->port)) {
            recursor->host[0] = '\0';
            continue;
        }
        const struct recursor *before = recursor_find(old, recursor);

        recursor->due = true;
        if (before != NULL && before->address[0] != '\0') {
            memcpy(recursor->address, before->address, sizeof(recursor->address));
            config->recursors[i] = recursor->address;
        }
    }
}

/* IPv4 first, as in Consul. */
static bool recursor_set_address(struct recursor *recursor, const struct addrinfo *found)
{
    const struct addrinfo *chosen = found;
    char ip[ADDRESS_BYTES_MAX / 2 + 16];

    for (const struct addrinfo *it = found; it != NULL; it = it->ai_next) {
        if (it->ai_family == AF_INET) {
            chosen = it;
            break;
        }
    }
    if (chosen == NULL || uv_ip_name(chosen->ai_addr, ip, sizeof(ip)) != 0) {
        return false;
    }
    (void)snprintf(recursor->address, sizeof(recursor->address),
                   chosen->ai_family == AF_INET6 ? "[%s]:%u" : "%s:%u", ip, recursor->port);
    return true;
}

static void recursor_on_lookup(uv_getaddrinfo_t *lookup, int status, struct addrinfo *found)
{
    struct server_recursors *recursors = lookup->data;
    struct recursor *recursor = &recursors->list[recursors->index];
    char before[ADDRESS_BYTES_MAX];

    recursors->looking = false;
    if (recursors->freed) {
        uv_freeaddrinfo(found);
        free(recursors);
        return;
    }
    memcpy(before, recursor->address, sizeof(before));
    if (recursors->void_lookup) {
        recursors->void_lookup = false;
    } else if (status < 0 || !recursor_set_address(recursor, found)) {
        log_write(LOG_WARN, "dns", "recursor %s has no address, it is looked up again in %d s: %s",
                  recursor->host, RECURSOR_RETRY_MS / 1000,
                  status < 0 ? uv_strerror(status) : "none of IPv4 or IPv6");
        recursor->due_ms = uv_now(recursors->loop) + RECURSOR_RETRY_MS;
    } else if (strcmp(before, recursor->address) != 0 &&
               dns_server_set_recursor(recursors->dns, recursors->index, recursor->address) != 0) {
        memcpy(recursor->address, before, sizeof(before)); /* no memory: later */
        recursor->due_ms = uv_now(recursors->loop) + RECURSOR_RETRY_MS;
    } else {
        recursor->due = false;
    }
    uv_freeaddrinfo(found);
}

void server_recursors_tick(struct server_recursors *recursors, struct dns_server *dns)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_DGRAM};

    recursors->dns = dns;
    /* One at a time: a name that nobody answers for must not take all threads of the pool. */
    for (size_t i = 0; i < DNS_RECURSORS_MAX && !recursors->looking; i++) {
        struct recursor *recursor = &recursors->list[i];

        if (!recursor->due || recursor->due_ms > uv_now(recursors->loop)) {
            continue;
        }
        recursors->index = i;
        if (uv_getaddrinfo(recursors->loop, &recursors->lookup, recursor_on_lookup, recursor->host,
                           NULL, &hints) == 0) {
            recursors->looking = true;
        } else {
            recursor->due_ms = uv_now(recursors->loop) + RECURSOR_RETRY_MS;
        }
    }
}

void server_recursors_free(struct server_recursors *recursors)
{
    if (recursors == NULL) {
        return;
    }
    if (!recursors->looking) {
        free(recursors);
        return;
    }
    recursors->freed = true;
    (void)uv_cancel((uv_req_t *)&recursors->lookup); /* or it ends by itself */
}
