#ifndef TESTS_UNIT_DNS_FIXTURE_H
#define TESTS_UNIT_DNS_FIXTURE_H

/* A small catalog, questions in words, and answers as text, for the tests and the fuzz target of
 * the DNS responder. */

#include <arpa/inet.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dns/dns.h"
#include "dns/dns_wire.h"
#include "kv/store.h"
#include "server/catalog/catalog.h"

enum {
    DNS_FIXTURE_STORE_BYTES = 64 << 20,
    DNS_FIXTURE_TEXT_BYTES = 1 << 20,
    DNS_FIXTURE_NOW_S = 1700000000,
};

/* What cannot fail in a test, and makes the rest worthless if it does. */
#define DNS_REQUIRE(condition)                                                                     \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (void)fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                  \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

struct dns_fixture {
    char dir[64];
    struct store *store;
    struct store_txn txn;
    uint64_t index;
    struct dns_config config;
};

static inline void dns_fixture_open(struct dns_fixture *fixture)
{
    bool wiped;
    struct errmsg err = {""};

    memset(fixture, 0, sizeof(*fixture));
    strcpy(fixture->dir, "/tmp/proconsul-dns-XXXXXX");
    DNS_REQUIRE(mkdtemp(fixture->dir) != NULL);
    const struct store_options options = {.dir = fixture->dir,
                                          .bytes_max = DNS_FIXTURE_STORE_BYTES};

    DNS_REQUIRE(store_open(&options, &fixture->store, &wiped, &err) == 0);
    fixture->config = (struct dns_config){
        .domain = "consul",
        .datacenter = "dc1",
        .udp_answer_limit = 3,
        .node_meta_txt = true,
        .soa = {.refresh_s = 3600, .retry_s = 600, .expire_s = 86400},
    };
}

static inline void dns_fixture_close(struct dns_fixture *fixture)
{
    char path[512];
    struct dirent *entry;
    DIR *dir;

    store_close(fixture->store);
    dir = opendir(fixture->dir);
    DNS_REQUIRE(dir != NULL);
    while ((entry = readdir(dir)) != NULL) {
        (void)snprintf(path, sizeof(path), "%s/%s", fixture->dir, entry->d_name);
        (void)unlink(path);
    }
    (void)closedir(dir);
    DNS_REQUIRE(rmdir(fixture->dir) == 0);
}

/* What to register; NULL and 0 leave out. Lists are blank-separated. */
struct dns_fixture_entry {
    const char *node, *address;
    const char *node_id;
    const char *node_tagged; /* name address ... */
    const char *meta;        /* key value ... */
    const char *service, *id;
    const char *tags;
    const char *service_address;
    const char *service_tagged; /* name address port ... */
    uint32_t port;
    uint32_t weight_passing, weight_warning; /* 0: 1 */
    const char *check;                       /* status of a check of the service */
    const char *node_check;                  /* status of a check of the node */
};

static inline struct slice dns_fixture_slice(const char *text)
{
    return text == NULL ? SLICE_EMPTY : slice_from_text(text);
}

static inline struct strings dns_fixture_list(struct buffer *buffer, const char *words)
{
    uint32_t count = 0;

    while (words != NULL && *words != '\0') {
        const size_t size = strcspn(words, " ");

        strings_pack_add(buffer, slice_from(words, size));
        count++;
        words += size + (words[size] == ' ');
    }
    return strings_from_packed(buffer_slice(buffer), count);
}

static inline void dns_fixture_add_check(struct buffer *checks,
                                         const struct dns_fixture_entry *entry, const char *status,
                                         bool of_service, uint32_t *count)
{
    struct buffer one = {0};
    const struct slice service = dns_fixture_slice(entry->id != NULL ? entry->id : entry->service);

    if (status == NULL) {
        return;
    }
    catalog_check_encode(
        &one, &(struct catalog_check){
                  .node = dns_fixture_slice(entry->node),
                  .id = of_service ? service : SLICE_LITERAL("alive"),
                  .name = SLICE_LITERAL("probe"),
                  .status = dns_fixture_slice(status),
                  .service_id = of_service ? service : SLICE_EMPTY,
                  .service_name = of_service ? dns_fixture_slice(entry->service) : SLICE_EMPTY,
              });
    buffer_put_string(checks, buffer_slice(&one));
    buffer_deinit(&one);
    (*count)++;
}

/* Several entries may be put into one transaction: each costs a sync of its own otherwise. */
static inline void dns_fixture_begin(struct dns_fixture *fixture)
{
    DNS_REQUIRE(store_write_begin(fixture->store, &fixture->txn) == 0);
}

static inline void dns_fixture_commit(struct dns_fixture *fixture)
{
    DNS_REQUIRE(store_write_commit(&fixture->txn) == 0);
    store_changes_free(&fixture->txn);
}

static inline void dns_fixture_put(struct dns_fixture *fixture,
                                   const struct dns_fixture_entry *entry)
{
    struct buffer buffers[5] = {{0}};
    struct buffer checks = {0};
    struct buffer ended = {0};
    struct errmsg err = {""};
    struct catalog_registration registration = {
        .node = {.id = dns_fixture_slice(entry->node_id),
                 .name = dns_fixture_slice(entry->node),
                 .address = dns_fixture_slice(entry->address),
                 .datacenter = SLICE_LITERAL("dc1"),
                 .tagged_addresses = dns_fixture_list(&buffers[0], entry->node_tagged),
                 .meta = dns_fixture_list(&buffers[1], entry->meta)},
        .has_service = entry->service != NULL,
        .service = {.node = dns_fixture_slice(entry->node),
                    .id = dns_fixture_slice(entry->id != NULL ? entry->id : entry->service),
                    .name = dns_fixture_slice(entry->service),
                    .tags = dns_fixture_list(&buffers[2], entry->tags),
                    .address = dns_fixture_slice(entry->service_address),
                    .tagged_addresses = dns_fixture_list(&buffers[3], entry->service_tagged),
                    .meta = dns_fixture_list(&buffers[4], NULL),
                    .port = entry->port,
                    .weight_passing = entry->weight_passing == 0 ? 1 : entry->weight_passing,
                    .weight_warning = entry->weight_warning == 0 ? 1 : entry->weight_warning},
    };

    /* Tagged addresses of services are triples: their count stays the count of strings. */
    dns_fixture_add_check(&checks, entry, entry->check, true, &registration.check_count);
    dns_fixture_add_check(&checks, entry, entry->node_check, false, &registration.check_count);
    registration.checks = buffer_slice(&checks);
    const int rc = catalog_register(&fixture->txn, ++fixture->index, (struct session_stamp){1, 1},
                                    &registration, &ended, &err);

    if (rc != 0) {
        (void)fprintf(stderr, "%s: %d %s\n", entry->node, rc, err.text);
        abort();
    }
    for (size_t i = 0; i < sizeof(buffers) / sizeof(buffers[0]); i++) {
        buffer_deinit(&buffers[i]);
    }
    buffer_deinit(&checks);
    buffer_deinit(&ended);
}

static inline void dns_fixture_register(struct dns_fixture *fixture,
                                        const struct dns_fixture_entry *entry)
{
    dns_fixture_begin(fixture);
    dns_fixture_put(fixture, entry);
    dns_fixture_commit(fixture);
}

/* The node n1, and a service "many" that only TCP has room for. */
static inline void dns_fixture_register_some(struct dns_fixture *fixture)
{
    char address[32], node[32];

    dns_fixture_register(fixture, &(struct dns_fixture_entry){.node = "n1", .address = "10.0.0.1"});
    for (unsigned i = 1; i <= 200; i++) {
        (void)snprintf(node, sizeof(node), "m%03u", i);
        (void)snprintf(address, sizeof(address), "10.5.1.%u", i);
        dns_fixture_register(
            fixture, &(struct dns_fixture_entry){
                         .node = node, .address = address, .service = "many", .port = 9000});
    }
}

static const struct {
    const char *text;
    uint16_t type;
} dns_fixture_types[] = {
    {"A", DNS_A},     {"NS", DNS_NS},     {"CNAME", DNS_CNAME}, {"SOA", DNS_SOA},
    {"PTR", DNS_PTR}, {"MX", 15},         {"TXT", DNS_TXT},     {"AAAA", DNS_AAAA},
    {"SRV", DNS_SRV}, {"AXFR", DNS_AXFR}, {"ANY", DNS_ANY},     {"OPT", DNS_OPT},
};

static inline const char *dns_fixture_type_text(uint16_t type)
{
    for (size_t i = 0; i < sizeof(dns_fixture_types) / sizeof(dns_fixture_types[0]); i++) {
        if (dns_fixture_types[i].type == type) {
            return dns_fixture_types[i].text;
        }
    }
    return "?";
}

/* "web.service.consul SRV" as a message with RD set, and OPT when `edns_size` is not 0. */
static inline size_t dns_fixture_query(const char *question, uint16_t edns_size, uint8_t *out,
                                       size_t out_bytes)
{
    const char *blank = strchr(question, ' ');
    struct dns_writer writer = {.data = out, .limit = out_bytes};
    uint8_t labels[DNS_NAME_BYTES_MAX];
    uint16_t type = 0;

    DNS_REQUIRE(blank != NULL);
    for (size_t i = 0; i < sizeof(dns_fixture_types) / sizeof(dns_fixture_types[0]); i++) {
        if (strcmp(blank + 1, dns_fixture_types[i].text) == 0) {
            type = dns_fixture_types[i].type;
        }
    }
    DNS_REQUIRE(type != 0);
    const size_t size = dns_labels_from_text(slice_from(question, (size_t)(blank - question)),
                                             labels, sizeof(labels));

    dns_writer_u16(&writer, 0x1234);
    dns_writer_u16(&writer, DNS_FLAG_RD);
    dns_writer_u16(&writer, 1);
    dns_writer_u16(&writer, 0);
    dns_writer_u16(&writer, 0);
    dns_writer_u16(&writer, edns_size != 0);
    dns_writer_bytes(&writer, labels, size);
    dns_writer_u8(&writer, 0);
    dns_writer_u16(&writer, type);
    dns_writer_u16(&writer, DNS_CLASS_IN);
    if (edns_size != 0) {
        dns_writer_opt(&writer, &(struct dns_query){.edns = true, .edns_size = edns_size});
    }
    DNS_REQUIRE(!writer.failed);
    return writer.size;
}

static inline void dns_fixture_print_name(struct buffer *out, struct dns_reader *reader)
{
    struct dns_name_text name;

    dns_reader_name(reader, &name);
    DNS_REQUIRE(!reader->failed);
    for (size_t i = 0; i < name.label_count; i++) {
        const uint8_t *label = name.wire + name.labels[i];

        buffer_printf(out, "%s%.*s", i == 0 ? "" : ".", label[0], (const char *)label + 1);
    }
}

static inline void dns_fixture_print_data(struct buffer *out, struct dns_reader *reader,
                                          uint16_t type, uint16_t size)
{
    const uint8_t *end = reader->at + size;
    char text[INET6_ADDRSTRLEN];

    switch (type) {
    case DNS_A:
    case DNS_AAAA:
        DNS_REQUIRE(size == (type == DNS_A ? 4 : 16));
        (void)inet_ntop(type == DNS_A ? AF_INET : AF_INET6, dns_reader_bytes(reader, size), text,
                        sizeof(text));
        buffer_append_text(out, text);
        break;
    case DNS_SRV:
        for (int i = 0; i < 3; i++) {
            buffer_printf(out, "%u ", dns_reader_u16(reader));
        }
        dns_fixture_print_name(out, reader);
        break;
    case DNS_SOA:
        dns_fixture_print_name(out, reader);
        buffer_append_char(out, ' ');
        dns_fixture_print_name(out, reader);
        for (int i = 0; i < 5; i++) {
            buffer_printf(out, " %u", dns_reader_u32(reader));
        }
        break;
    case DNS_TXT:
        while (reader->at < end) {
            const uint8_t *length = dns_reader_bytes(reader, 1);
            const uint8_t *chars = dns_reader_bytes(reader, *length);

            DNS_REQUIRE(chars != NULL);
            buffer_printf(out, "\"%.*s\"", *length, (const char *)chars);
        }
        break;
    case DNS_CNAME:
    case DNS_NS:
    case DNS_PTR:
        dns_fixture_print_name(out, reader);
        break;
    default: /* of another server's making */
        buffer_printf(out, "%u bytes", size);
        DNS_REQUIRE(dns_reader_bytes(reader, size) != NULL);
    }
    DNS_REQUIRE(!reader->failed);
    DNS_REQUIRE(reader->at == end); /* Else the record's size is wrong. */
}

static int dns_fixture_compare_lines(const void *a, const void *b)
{
    const char *const *left = a;
    const char *const *right = b;

    return strcmp(*left, *right);
}

/* An answer as "NOERROR aa rd|an OWNER TTL TYPE DATA|ns ...|ar ...", the records of each section
 * sorted, OPT as "edns SIZE". Aborts on what cannot be read. `out` is a string. */
static inline void dns_fixture_print(const uint8_t *message, size_t size, struct buffer *out)
{
    static const char *const rcodes[] = {"NOERROR",  "FORMERR", "SERVFAIL",
                                         "NXDOMAIN", "NOTIMP",  "REFUSED"};
    static const char *const sections[] = {"an", "ns", "ar"};
    struct dns_reader reader = dns_reader_from(message, size);
    struct buffer lines = {0};
    uint16_t counts[4];
    char *sorted[8192];
    size_t line_count = 0;

    DNS_REQUIRE(dns_reader_u16(&reader) == 0x1234);
    const uint16_t flags = dns_reader_u16(&reader);

    DNS_REQUIRE((flags & DNS_FLAG_QR) != 0);
    DNS_REQUIRE((flags & 0xf) < sizeof(rcodes) / sizeof(rcodes[0]));
    buffer_printf(out, "%s%s%s%s%s", rcodes[flags & 0xf], flags & DNS_FLAG_AA ? " aa" : "",
                  flags & DNS_FLAG_TC ? " tc" : "", flags & DNS_FLAG_RD ? " rd" : "",
                  flags & DNS_FLAG_RA ? " ra" : "");
    for (int i = 0; i < 4; i++) {
        counts[i] = dns_reader_u16(&reader);
    }
    if (counts[0] == 1) {
        struct dns_name_text name;

        dns_reader_name(&reader, &name);
        (void)dns_reader_u32(&reader);
    }
    for (int section = 0; section < 3; section++) {
        for (int i = 0; i < counts[section + 1]; i++) {
            buffer_printf(&lines, "%s ", sections[section]);
            dns_fixture_print_name(&lines, &reader);
            const uint16_t type = dns_reader_u16(&reader);
            const uint16_t class = dns_reader_u16(&reader);
            const uint32_t ttl = dns_reader_u32(&reader);
            const uint16_t data_size = dns_reader_u16(&reader);

            if (type == DNS_OPT) {
                DNS_REQUIRE(dns_reader_bytes(&reader, data_size) != NULL);
                buffer_printf(&lines, "edns %u", class);
            } else {
                buffer_printf(&lines, " %u %s ", ttl, dns_fixture_type_text(type));
                dns_fixture_print_data(&lines, &reader, type, data_size);
            }
            buffer_append_char(&lines, '\0');
            line_count++;
        }
    }
    DNS_REQUIRE(!reader.failed);
    DNS_REQUIRE(dns_reader_left(&reader) == 0);
    DNS_REQUIRE(line_count <= sizeof(sorted) / sizeof(sorted[0]));
    char *at = lines.data;

    for (size_t i = 0; i < line_count; i++, at += strlen(at) + 1) {
        sorted[i] = at;
    }
    /* "an" before "ar" before "ns"; within each by text. */
    qsort(sorted, line_count, sizeof(sorted[0]), dns_fixture_compare_lines);
    for (size_t i = 0; i < line_count; i++) {
        buffer_printf(out, "|%s", sorted[i]);
    }
    buffer_append_char(out, '\0');
    buffer_deinit(&lines);
}

#endif
