#ifndef DNS_DNS_INTERNAL_H
#define DNS_DNS_INTERNAL_H

/* What is shared inside dns/: the configuration made ready for answering (zone), a question taken
 * apart, and the resolver, one per thread, with all the memory that an answer may need. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "dns/dns.h"
#include "dns/dns_wire.h"
#include "kv/slice.h"
#include "kv/store.h"
#include "server/catalog/catalog.h"

/* --- zone: a configuration with its names in wire form --- */

enum {
    DNS_UDP_ANSWERS_MAX = 8, /* Consul's bound on udp_answer_limit */
    DNS_SUFFIX_BYTES_MAX = 255,
};

/* A name that questions may end in, lower case, the root's zero included. */
struct dns_suffix {
    uint8_t wire[DNS_SUFFIX_BYTES_MAX];
    size_t size; /* 0: none; the root has 1 */
};

/* A server that names outside the domain are forwarded to. */
struct dns_recursor {
    struct sockaddr_storage address;
    socklen_t address_size;
    bool own; /* it is ourselves: never asked */
};

struct dns_zone {
    struct dns_config config; /* strings owned */
    struct dns_recursor recursors[DNS_RECURSORS_MAX];
    size_t recursor_count; /* those of the configuration that are addresses */
    char *strings;         /* what they live in */
    struct dns_suffix domain;
    struct dns_suffix alt_domain;
    char datacenter[DNS_LABEL_BYTES_MAX + 1]; /* lower case */
    uint8_t datacenter_label[DNS_LABEL_BYTES_MAX + 1];
    /* Names that answers end in, each the parent of the one before. */
    struct dns_name domain_name;
    struct dns_name datacenter_name; /* dc.domain */
    struct dns_name node_name;       /* node.dc.domain */
    struct dns_name service_name;
    struct dns_name addr_name;
    struct dns_name server_name;  /* ns.domain */
    struct dns_name mailbox_name; /* hostmaster.domain */
    /* The names that SRV targets end in, in one piece each. */
    uint8_t node_flat[DNS_NAME_BYTES_MAX];
    uint8_t addr_flat[DNS_NAME_BYTES_MAX];
};

/* Returns owned, a copy of everything; NULL when out of memory or when domain or datacenter is no
 * name. */
struct dns_zone *dns_zone_new(const struct dns_config *config);
void dns_zone_free(struct dns_zone *zone); /* accepts NULL */
/* Seconds that a service's records may be kept: its own entry, else the longest prefix's. `service`
 * is lower case; an entry with capitals is for none, as in Consul. */
uint32_t dns_zone_service_ttl_s(const struct dns_zone *zone, struct slice service);
/* Records of one answer about a service over UDP without EDNS. */
size_t dns_zone_udp_answers_max(const struct dns_zone *zone);

/* --- questions (NOTES-dns-cli, section 3) --- */

enum dns_subject_kind {
    DNS_SUBJECT_FOREIGN, /* not ours */
    DNS_SUBJECT_REVERSE, /* below arpa */
    DNS_SUBJECT_INVALID, /* ours, but no such form of name */
    DNS_SUBJECT_SERVICE,
    DNS_SUBJECT_NODE,
    DNS_SUBJECT_ADDRESS,
};

struct dns_subject {
    enum dns_subject_kind kind;
    bool in_domain;          /* the name ends in the primary domain, not the other one */
    bool datacenter_unknown; /* another one is named: nothing is found there */
    bool matchless; /* holds bytes that Consul compares in escaped form: nothing is called so */
    char text[DNS_NAME_BYTES_MAX + 1]; /* lower case; what the slices below point into */
    struct slice service;
    struct slice tag; /* empty: none wanted */
    struct slice node;
    struct slice address; /* hexadecimal digits */
    size_t shown_size; /* of all of these with bytes escaped as Consul escapes them, dots apart */
};

void dns_subject_parse(const struct dns_zone *zone, const struct dns_name_text *name, uint16_t type,
                       struct dns_subject *out);

struct dns_ip {
    uint8_t size; /* 4 or 16; 0: none */
    uint8_t bytes[16];
};

/* As Go reads an address: IPv4-mapped IPv6 is IPv4. False for host names and all else. */
bool dns_ip_parse(struct slice text, struct dns_ip *out);
/* The address that a name below in-addr.arpa or ip6.arpa stands for. */
bool dns_ip_from_reverse(const struct dns_name_text *name, struct dns_ip *out);

/* --- the resolver --- */

enum {
    DNS_INSTANCES_MAX = 16384,     /* of one service that are looked at; of more a random part */
    DNS_ANSWERS_MAX = 4608,        /* records; 4096 A records fill a message */
    DNS_GLUE_MAX = 8192,           /* records */
    DNS_AUTHORITY_MAX = 4,         /* records: a SOA, or three name servers */
    DNS_ADDITIONAL_MAX = 1024,     /* records: node metadata, addresses of name servers */
    DNS_NODE_CHECKS_MAX = 1024,    /* bad checks of one node that are remembered */
    DNS_ARENA_BYTES = 1 << 20,     /* names of one answer */
    DNS_NAME_SLOTS = 1 << 14,      /* of the tables of names and of what was seen; a power of two */
    DNS_CHAIN_STEPS_MAX = 3,       /* names followed inside the domain */
    DNS_CHAIN_RECORDS_MAX = 64,    /* records of one chain; what is beyond is left out */
    DNS_CHAIN_LOOKS_MAX = 1 << 18, /* instances looked at for such names, per answer */
    DNS_CHAIN_READ_LOOKS = 16,     /* what one that is read from the store counts for */
    DNS_CHAIN_SERVICE_RECORDS = 5, /* kept below a service's CNAME without EDNS */
    DNS_CHASED_MAX = 16,           /* names asked from recursors for one answer */
    DNS_NAME_SERVERS_MAX = 3,
    DNS_TCP_ANSWERS_MAX = 4096,
    DNS_TCP_SRV_ANSWERS_MAX = 1024,
    DNS_TCP_BYTES_MAX = 65523, /* Consul's: 64 KiB less some overhead */
    DNS_SLACK_BYTES = 7,       /* that Consul leaves of what a UDP client takes */
};

/* Which addresses a question takes. */
enum dns_accept { DNS_ACCEPT_V4, DNS_ACCEPT_V6, DNS_ACCEPT_ANY, DNS_ACCEPT_COUNT };

/* Where an instance or a node is. */
struct dns_place {
    enum { DNS_PLACE_NONE, DNS_PLACE_IP, DNS_PLACE_HOST } kind;
    bool own; /* not the node's plain address: SRV names it by its digits */
    struct dns_ip ip;
    struct slice host;
};

enum dns_check_state {
    DNS_CHECK_PASSING,
    DNS_CHECK_WARNING,
    DNS_CHECK_ODD, /* free text */
    DNS_CHECK_CRITICAL,
};

/* What is worked out once for an instance that is kept. */
struct dns_kept {
    struct dns_place places[DNS_ACCEPT_COUNT];
    bool alone[DNS_ACCEPT_COUNT]; /* no other instance has its address, none a host name */
    bool alone_srv;               /* no other is on the same node with its port and address */
    struct dns_name *node_name;   /* NULL: its name is none in DNS */
    struct dns_name *ip_name;     /* of the address taken for SRV; NULL: not needed */
};

/* One instance. Slices are the transaction's, or the cache's with `kept` set. */
struct dns_instance {
    uint32_t node_index; /* instances of one node share it, within one service */
    uint32_t port;
    uint32_t weight;
    enum dns_check_state state;
    struct strings tags;
    struct slice node;
    struct slice node_address;
    struct strings node_tagged;
    struct strings node_meta;
    struct slice address;
    struct strings tagged;
    struct dns_kept *kept; /* NULL: read for this question */
};

/* Instances of services, decoded, valid as long as the catalog stays as it is: the indexes of its
 * tables tell, so that writes of keys and sessions flush nothing. One thread's alone. */
enum {
    DNS_CACHE_SERVICES_MAX = 512,
    DNS_CACHE_SLOTS = 2 * DNS_CACHE_SERVICES_MAX, /* a power of two */
    DNS_CACHE_BYTES = 16 << 20,
    DNS_CACHE_KEYS = 1 << 17, /* twice the instances that there is room for; a power of two */
    DNS_CACHE_VERSIONS = 3,
    DNS_REVERSE_SLOTS = 1 << 14, /* a power of two */
};

struct dns_cache_slot {
    uint64_t generation; /* in use if this is the cache's */
    uint32_t hash;
    struct slice service;
    bool refused;                   /* there was no room */
    struct dns_instance *instances; /* NULL: not kept so far */
    size_t instance_count;
    struct dns_instance **healthy; /* those of them that may be told */
    size_t healthy_count;
};

/* What an address is called: the first node that has it, or else the first service. */
struct dns_reverse {
    struct dns_reverse *next; /* with the same hash */
    struct dns_ip ip;
    struct dns_name *name;
};

struct dns_cache {
    uint64_t generation;
    uint64_t versions[DNS_CACHE_VERSIONS];
    size_t slot_count;
    size_t arena_used;
    struct dns_cache_slot slots[DNS_CACHE_SLOTS];
    uint32_t keys[DNS_CACHE_KEYS]; /* while instances are compared: index + 1 */
    enum { DNS_REVERSE_UNASKED, DNS_REVERSE_ASKED, DNS_REVERSE_KEPT, DNS_REVERSE_REFUSED } reverse;
    struct dns_reverse *reverse_slots[DNS_REVERSE_SLOTS]; /* of addresses, if KEPT */
    _Alignas(16) uint8_t arena[DNS_CACHE_BYTES];
};

struct dns_bad_check {
    struct slice service_id;
    enum dns_check_state state;
};

/* What the recursors said about a name outside the domain. Borrowed throughout. */
struct dns_chased {
    const uint8_t *name; /* wire form, the root included */
    size_t name_size;
    const uint8_t *answer; /* a whole message, as it came; NULL: nothing came */
    size_t answer_size;
};

/* A name outside the domain that an answer leads to. */
struct dns_wanted {
    uint8_t size;
    uint8_t wire[DNS_NAME_BYTES_MAX];
};

struct dns_slot {
    uint64_t message; /* in use if this message's */
    uint32_t hash;
    struct dns_name *name; /* name table */
    const uint8_t *key;    /* seen table */
    size_t key_size;
};

struct dns_resolver {
    /* Of the call. */
    struct dns_zone *zone;
    struct store_txn *txn; /* NULL: the store cannot be read; everything is SERVFAIL */
    uint64_t now_s;
    uint64_t *random;
    bool tcp;
    bool failed; /* reading the store failed */
    struct dns_query query;
    struct dns_subject subject;
    struct dns_name question_name;
    enum dns_rcode rcode;
    uint16_t flags; /* AA, RA, TC of the answer */
    bool edns_echo;
    bool from_store; /* what the answer says depends on the store */

    /* What the answer lacks. It is an answer all the same, for when no recursor helps. */
    bool forward; /* the whole question is one for the recursors */
    size_t wanted_count;
    struct dns_wanted wanted[DNS_CHASED_MAX];
    /* Set by the caller between calls: names that are known by now. */
    const struct dns_chased *chased;
    size_t chased_count;
    struct dns_cache *cache; /* NULL: none; the caller's, renewed for the transaction */

    /* Count answers, and times that one is written or measured; what belongs to an older one is
     * void without being cleared. */
    uint64_t message;
    uint64_t pass;

    size_t answer_count;
    size_t glue_count;
    size_t authority_count;
    size_t additional_count;
    size_t instance_count;
    size_t look_count;   /* instances looked at behind names, see DNS_CHAIN_LOOKS_MAX */
    uint32_t list_count; /* of addresses, each without repetition, behind names */
    size_t arena_used;
    size_t bad_check_count;
    bool service_answer; /* the answer limits of services apply */
    bool clipped;        /* more answers exist than were made */

    uint32_t sums[DNS_ANSWERS_MAX + 1]; /* see dns_message.c */
    struct dns_record answers[DNS_ANSWERS_MAX];
    struct dns_record glue[DNS_GLUE_MAX];
    struct dns_record authority[DNS_AUTHORITY_MAX];
    struct dns_record additional[DNS_ADDITIONAL_MAX];
    struct dns_instance *list[DNS_INSTANCES_MAX]; /* healthy ones, in random order */
    struct dns_instance instances[DNS_INSTANCES_MAX];
    struct dns_bad_check bad_checks[DNS_NODE_CHECKS_MAX];
    struct dns_slot names[DNS_NAME_SLOTS];
    struct dns_slot seen[DNS_NAME_SLOTS];
    _Alignas(16) uint8_t arena[DNS_ARENA_BYTES];
};

/* Returns owned; NULL when out of memory. Only memory: what it works on comes with each call. */
struct dns_resolver *dns_resolver_new(void);
void dns_resolver_free(struct dns_resolver *resolver);

/* As dns_answer in dns.h, in a resolver's memory. */
size_t dns_resolver_answer(struct dns_resolver *resolver, struct dns_zone *zone,
                           struct store_txn *txn, const void *query, size_t query_size, bool tcp,
                           uint64_t now_s, uint64_t *random, void *out, size_t out_bytes);

/* dns_cache.c */

struct dns_cache *dns_cache_new(void); /* returns owned; NULL when out of memory */
void dns_cache_free(struct dns_cache *cache);
/* Before the first question in a transaction: forgets what the catalog has changed since. */
void dns_cache_renew(struct dns_cache *cache, struct store_txn *txn);
/* When the zone changes: kept names end in its names. */
void dns_cache_flush(struct dns_cache *cache);
/* The instances of a service, if they are kept or can be by now; valid until the catalog changes.
 * NULL: the store is to be read. */
const struct dns_cache_slot *dns_cache_get(struct dns_cache *cache, struct dns_resolver *r,
                                           struct slice service);
/* Notes that the service was asked for and has `count` instances. Names that nothing is called by
 * are not noted: anybody may ask for those. */
void dns_cache_note(struct dns_cache *cache, struct slice service, size_t count);

void *dns_cache_take(struct dns_cache *cache, size_t size); /* NULL when it is full */
/* "a.b" below parent, in *out; NULL there when that is no name in DNS. False when it is full. */
bool dns_cache_name(struct dns_cache *cache, struct slice text, struct dns_name *parent,
                    struct dns_name **out);

/* dns_instance.c */

/* Reads the instances of a service one by one, their health with them. Ends with catalog_scan_end.
 */
struct dns_reading {
    struct catalog_scan scan;
    struct slice node_name; /* of the instance before */
    uint32_t node_count;
    enum dns_check_state node_state;
};

int dns_reading_begin(struct dns_reading *reading, struct dns_resolver *r, struct slice service);
int dns_reading_next(struct dns_reading *reading, struct dns_resolver *r, struct dns_instance *out);
/* Notes a failed read; true when `rc` says that something was read. */
bool dns_store_read_ok(struct dns_resolver *r, int rc);
/* Whether questions are answered with it, as the zone has it. */
bool dns_instance_is_healthy(const struct dns_resolver *r, const struct dns_instance *instance);
enum dns_accept dns_accept_of(uint16_t type);
/* Consul's choice: lan_ipv6 before lan_ipv4 before the plain address, as far as they are taken.
 * `stride` strings make one tagged address. */
struct slice dns_address_choose(struct slice plain, struct strings tagged, size_t stride,
                                enum dns_accept accept);
struct dns_place dns_node_place(struct slice address, struct strings tagged,
                                enum dns_accept accept);
/* Where the instance is, whatever name was asked for. */
struct dns_place dns_instance_place_plain(const struct dns_instance *instance,
                                          enum dns_accept accept);
/* `wire` is the name asked for; `scratch` may hold the result. */
const struct dns_place *dns_instance_place(const struct dns_instance *instance, uint16_t type,
                                           const uint8_t *wire, size_t wire_size,
                                           struct dns_place *scratch);
/* What tells SRV records apart: node, port, address. Returns its size. */
enum { DNS_SRV_KEY_BYTES_MAX = 288 };
size_t dns_instance_srv_key(const struct dns_instance *instance,
                            uint8_t key[DNS_SRV_KEY_BYTES_MAX]);
/* NULL when it is no name. */
struct dns_name *dns_instance_node_name(struct dns_resolver *r,
                                        const struct dns_instance *instance);
struct dns_name *dns_instance_ip_name(struct dns_resolver *r, const struct dns_instance *instance,
                                      const struct dns_ip *ip);
/* Appends the healthy instances of a service to the resolver's list; returns how many. */
size_t dns_instances_collect(struct dns_resolver *r, struct slice service, struct slice tag);
/* The next instance in random order: Fisher and Yates' shuffle, one step each time, so that nobody
 * shuffles what does not fit into the answer. */
const struct dns_instance *dns_instances_draw(struct dns_resolver *r, size_t first, size_t index,
                                              size_t count);

/* dns_chain.c */

/* What the name `text` leads to, inside the domain step by step, then as the recursors say. With
 * `in_service` a service asks, whose TTL all records get. `records` has room for
 * DNS_CHAIN_RECORDS_MAX. */
size_t dns_chain_follow(struct dns_resolver *r, struct slice text, bool in_service, uint32_t ttl_s,
                        struct dns_record *records);

/* dns_lookup.c: each fills the resolver's sections. */
void dns_lookup_service(struct dns_resolver *r, const struct dns_subject *subject);
void dns_lookup_node(struct dns_resolver *r, const struct dns_subject *subject);
void dns_lookup_address(struct dns_resolver *r, const struct dns_subject *subject);
/* The node that is asked for; false: there is none. Valid as long as the transaction. */
bool dns_node_find(struct dns_resolver *r, const struct dns_subject *subject,
                   struct catalog_node *out);
/* NS records of the zone into `records`, at most DNS_NAME_SERVERS_MAX; their addresses into the
 * additional section. */
size_t dns_lookup_name_servers(struct dns_resolver *r, struct dns_record *records);

/* dns_reverse.c: the same for what an address is called; false when it is nobody's. */
bool dns_lookup_reverse(struct dns_resolver *r);

/* dns_record.c: the pieces. */
void *dns_arena_take(struct dns_resolver *r, size_t size); /* NULL when used up */
/* A name made of labels below a parent; the same labels and parent give the same object, so that
 * it is written once. NULL when memory is used up or the name too long. */
struct dns_name *dns_name_make(struct dns_resolver *r, const uint8_t *labels, size_t size,
                               struct dns_name *parent);
/* "a.b" below parent (NULL: the root; then the zone's names are shared if the text ends in one). */
struct dns_name *dns_name_from_text(struct dns_resolver *r, struct slice text,
                                    struct dns_name *parent);
/* "\10" "0a000001", the label of an address; returns its size. */
enum { DNS_IP_LABEL_BYTES_MAX = 33 }; /* the length and two digits for each byte */
size_t dns_ip_label(const struct dns_ip *ip, uint8_t label[DNS_IP_LABEL_BYTES_MAX]);
/* hex.addr.dc.domain */
struct dns_name *dns_name_from_ip(struct dns_resolver *r, const struct dns_ip *ip);
uint32_t dns_hash(const void *bytes, size_t size);
/* True if these bytes were not marked before in this message. */
bool dns_seen_first(struct dns_resolver *r, const void *key, size_t size);
/* The same for an address in one list of the answer: 0 is the answer itself, others are numbered by
 * `list_count`. */
bool dns_seen_address_first(struct dns_resolver *r, uint32_t list, const struct dns_ip *ip);
struct dns_record dns_record_address(struct dns_name *owner, uint32_t ttl_s,
                                     const struct dns_ip *ip);
/* The record of a name that carries an address; false when its digits are none. */
bool dns_record_from_digits(struct dns_resolver *r, struct slice digits, struct dns_name *owner,
                            struct dns_record *out);
struct dns_record dns_record_soa(struct dns_resolver *r);
void dns_record_set_address(struct dns_record *out, struct dns_name *owner, uint32_t ttl_s,
                            const struct dns_ip *ip);
void dns_add_answer(struct dns_resolver *r, const struct dns_record *record);
void dns_add_authority(struct dns_resolver *r, const struct dns_record *record);
void dns_add_additional(struct dns_resolver *r, const struct dns_record *record);
/* A number below `bound`, which is not 0. */
size_t dns_random_below(struct dns_resolver *r, size_t bound);

/* dns_chase.c: the records that the recursors gave for a name outside the domain, at most
 * `records_max`; a name not asked so far is noted as wanted. With `addresses_only` only CNAME, A
 * and AAAA are taken. */
size_t dns_chase(struct dns_resolver *r, const struct dns_name_text *name, bool addresses_only,
                 struct dns_record *records, size_t records_max);

/* dns_message.c: writes the sections, shortened to what the client takes; returns the size. */
size_t dns_message_write(struct dns_resolver *r, void *out, size_t out_bytes);

#endif
