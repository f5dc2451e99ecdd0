/* consul snapshot inspect: what the state in an archive consists of. */

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/cli/cli.h"
#include "server/http/http.h"
#include "server/snapshot/archive.h"

enum {
    INSPECT_RECORD_BYTES = 8, /* the sizes of key and value, in the file */
    INSPECT_COLUMNS = 3,
    INSPECT_COLUMN_BYTES_MIN = 8,
    INSPECT_GAP_BYTES = 6, /* between two columns */
};

/* Consul's names where it has the like. What is derived from other records has no count. */
static const struct {
    const char *name;
    bool derived;
} inspect_types[STORE_TABLE_COUNT] = {
    [STORE_INDEX] = {"Index", false},
    [STORE_KV] = {"KVS", false},
    [STORE_TOMBSTONE] = {"Tombstone", false},
    [STORE_LOCK_DELAY] = {"LockDelay", false},
    [STORE_SESSION] = {"Session", false},
    [STORE_SESSION_NODE] = {"Session", true},
    [STORE_SESSION_KEY] = {"Session", true},
    [STORE_NODE] = {"Register", false},
    [STORE_NODE_ID] = {"Register", true},
    [STORE_SERVICE] = {"Register", false},
    [STORE_SERVICE_NAME] = {"Register", true},
    [STORE_CHECK] = {"Register", false},
    [STORE_COORDINATE] = {"CoordinateBatchUpdate", false},
    [STORE_STAGED] = {"Staged", false},
    [STORE_SETTING] = {"Autopilot", false},
};

/* --- sums by name --- */

struct inspect_sum {
    char *name; /* owned; any bytes */
    size_t name_size;
    uint64_t bytes;
    uint64_t count;
};

struct inspect_sums {
    struct buffer list; /* struct inspect_sum each */
    uint64_t bytes;     /* of all */
};

static size_t sums_count(const struct inspect_sums *sums)
{
    return sums->list.size / sizeof(struct inspect_sum);
}

static struct inspect_sum *sums_at(const struct inspect_sums *sums, size_t i)
{
    return (struct inspect_sum *)(void *)sums->list.data + i;
}

static struct slice sum_name(const struct inspect_sum *sum)
{
    return slice_from(sum->name, sum->name_size);
}

static void sums_deinit(struct inspect_sums *sums)
{
    for (size_t i = 0; i < sums_count(sums); i++) {
        free(sums_at(sums, i)->name);
    }
    buffer_deinit(&sums->list);
}

/* Names may come again later: see sums_finish. False without memory. */
static bool sums_add(struct inspect_sums *sums, struct slice name, uint64_t bytes, uint64_t count)
{
    struct inspect_sum *last = sums_count(sums) > 0 ? sums_at(sums, sums_count(sums) - 1) : NULL;

    sums->bytes += bytes;
    if (last == NULL || !slice_equal(sum_name(last), name)) {
        const struct inspect_sum sum = {.name = malloc(name.size + 1), .name_size = name.size};

        if (sum.name == NULL) {
            return false;
        }
        memcpy(sum.name, name.data, name.size);
        buffer_append(&sums->list, &sum, sizeof(sum));
        if (sums->list.failed) {
            free(sum.name);
            return false;
        }
        last = sums_at(sums, sums_count(sums) - 1);
    }
    last->bytes += bytes;
    last->count += count;
    return true;
}

static int sum_compare_name(const void *a, const void *b)
{
    return slice_compare(sum_name(a), sum_name(b));
}

/* The largest first. */
static int sum_compare(const void *a, const void *b)
{
    const struct inspect_sum *left = a, *right = b;

    if (left->bytes != right->bytes) {
        return left->bytes > right->bytes ? -1 : 1;
    }
    return sum_compare_name(a, b);
}

/* One sum for each name, in the order in which they are shown. */
static void sums_finish(struct inspect_sums *sums)
{
    const size_t count = sums_count(sums);
    size_t kept = 0;

    if (count == 0) {
        return;
    }
    qsort(sums->list.data, count, sizeof(struct inspect_sum), sum_compare_name);
    for (size_t i = 1; i < count; i++) {
        struct inspect_sum *to = sums_at(sums, kept);
        struct inspect_sum *from = sums_at(sums, i);

        if (slice_equal(sum_name(to), sum_name(from))) {
            to->bytes += from->bytes;
            to->count += from->count;
            free(from->name);
        } else {
            *sums_at(sums, ++kept) = *from;
        }
    }
    sums->list.size = (kept + 1) * sizeof(struct inspect_sum);
    qsort(sums->list.data, kept + 1, sizeof(struct inspect_sum), sum_compare);
}

/* --- a table --- */

/* As Consul: "0", "166B", "12.3KB", "2KB". */
static void put_size(struct buffer *out, uint64_t bytes)
{
    static const char *const units[] = {"B", "KB", "MB", "GB", "TB"};
    double value = (double)bytes;
    size_t unit = 0;
    char text[32];

    while (value >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1024;
        unit++;
    }
    (void)snprintf(text, sizeof(text), "%.1f", value);
    char *end = text + strlen(text) - 2;
    if (strcmp(end, ".0") == 0) {
        *end = '\0';
    }
    buffer_printf(out, "%s%s", text, bytes == 0 ? "" : units[unit]);
}

/* A key may hold anything; here it is one line of a table. */
static void put_name(struct buffer *out, struct slice name)
{
    for (size_t i = 0; i < name.size; i++) {
        const unsigned char c = (unsigned char)name.data[i];

        if (c < 0x20 || c == 0x7f) {
            buffer_printf(out, "\\x%02x", c);
        } else {
            buffer_append_char(out, (char)c);
        }
    }
}

/* Characters, not bytes. */
static size_t cell_width(struct slice cell)
{
    size_t width = 0;

    for (size_t i = 0; i < cell.size; i++) {
        width += ((unsigned char)cell.data[i] & 0xc0) != 0x80 ? 1 : 0;
    }
    return width;
}

/* Cells end with a NUL, rows with the last column's; each column is as wide as its widest cell. */
static void print_table(struct slice cells)
{
    size_t widths[INSPECT_COLUMNS] = {0};

    for (int print = 0; print <= 1; print++) {
        const char *at = cells.data;

        for (size_t column = 0; at < cells.data + cells.size; column = (column + 1) % 3) {
            const struct slice cell = slice_from_text(at);
            const size_t width = cell_width(cell) + INSPECT_GAP_BYTES;

            if (print == 1) {
                (void)printf("%s%.*s%*s%s", column == 0 ? " " : "", (int)cell.size, cell.data,
                             (int)(widths[column] - cell_width(cell)), "",
                             column == INSPECT_COLUMNS - 1 ? "\n" : "");
            } else if (width > widths[column]) {
                widths[column] = width;
            }
            at += cell.size + 1;
        }
    }
}

static void put_cells(struct buffer *out, const char *a, const char *b, const char *c)
{
    buffer_append(out, a, strlen(a) + 1);
    buffer_append(out, b, strlen(b) + 1);
    buffer_append(out, c, strlen(c) + 1);
}

static bool print_sums(const char *title, const struct inspect_sums *sums)
{
    struct buffer cells = {0};

    put_cells(&cells, title, "Count", "Size");
    put_cells(&cells, "----", "----", "----");
    for (size_t i = 0; i < sums_count(sums); i++) {
        const struct inspect_sum *sum = sums_at(sums, i);

        put_name(&cells, sum_name(sum));
        buffer_append_char(&cells, '\0');
        buffer_printf(&cells, "%" PRIu64, sum->count);
        buffer_append_char(&cells, '\0');
        put_size(&cells, sum->bytes);
        buffer_append_char(&cells, '\0');
    }
    put_cells(&cells, "----", "----", "----");
    put_cells(&cells, "Total", "", "");
    if (!cells.failed) {
        cells.size--;
        put_size(&cells, sums->bytes);
        buffer_append_char(&cells, '\0');
    }
    const bool whole = !cells.failed;

    if (whole) {
        print_table(buffer_slice(&cells));
    }
    buffer_deinit(&cells);
    return whole;
}

/* --- both forms --- */

struct inspect {
    struct inspect_sums types, keys;
};

static bool print_pretty(const struct archive *archive, const char *id,
                         const struct inspect *inspect, bool details)
{
    const struct snapshot_meta *meta = archive_meta(archive);

    (void)printf(" ID           %s\n Size         %" PRIu64 "\n Index        %" PRIu64
                 "\n Term         %" PRIu64 "\n Version      1\n\n",
                 id, meta->bytes, meta->index, meta->term);
    if (!print_sums("Type", &inspect->types)) {
        return false;
    }
    if (details) {
        (void)printf("\n");
        return print_sums("Key Name", &inspect->keys);
    }
    return true;
}

static void put_json_sums(struct buffer *out, const struct inspect_sums *sums)
{
    buffer_append_char(out, '[');
    for (size_t i = 0; i < sums_count(sums); i++) {
        const struct inspect_sum *sum = sums_at(sums, i);

        buffer_append_text(out, i > 0 ? ",\n      {\n         \"Name\": "
                                      : "\n      {\n         \"Name\": ");
        json_put_string(out, sum_name(sum));
        buffer_printf(out,
                      ",\n         \"Sum\": %" PRIu64 ",\n         \"Count\": %" PRIu64 "\n      }",
                      sum->bytes, sum->count);
    }
    buffer_append_text(out, sums_count(sums) > 0 ? "\n   ]" : "]");
}

static bool print_json(const struct archive *archive, const char *id, const struct inspect *inspect)
{
    const struct snapshot_meta *meta = archive_meta(archive);
    struct buffer out = {0};

    buffer_append_text(&out, "{\n   \"Meta\": {\n      \"ID\": ");
    json_put_string(&out, slice_from_text(id));
    buffer_printf(&out,
                  ",\n      \"Size\": %" PRIu64 ",\n      \"Index\": %" PRIu64
                  ",\n      \"Term\": %" PRIu64 ",\n      \"Version\": 1\n   },\n   \"Stats\": ",
                  meta->bytes, meta->index, meta->term);
    put_json_sums(&out, &inspect->types);
    buffer_append_text(&out, ",\n   \"StatsKV\": ");
    if (sums_count(&inspect->keys) > 0) {
        put_json_sums(&out, &inspect->keys);
    } else {
        buffer_append_text(&out, "null");
    }
    buffer_printf(&out, ",\n   \"TotalSize\": %" PRIu64 ",\n   \"TotalSizeKV\": %" PRIu64 "\n}\n",
                  inspect->types.bytes, inspect->keys.bytes);
    const bool whole = !out.failed;

    if (whole) {
        (void)fwrite(out.data, 1, out.size, stdout);
    }
    buffer_deinit(&out);
    return whole;
}

/* --- reading --- */

/* The first `depth` parts of a key, with the slashes between them. */
static struct slice key_group(struct slice key, size_t depth)
{
    size_t slashes = 0;

    for (size_t i = 0; i < key.size && depth > 0; i++) {
        slashes += key.data[i] == '/' ? 1 : 0;
        if (slashes == depth) {
            return slice_from(key.data, i);
        }
    }
    return depth > 0 ? key : SLICE_EMPTY;
}

static int inspect_read(struct archive *archive, const struct cli_inspect_options *options,
                        struct inspect *inspect, struct errmsg *err)
{
    const struct slice wanted = slice_from_text(options->key_prefix);
    enum store_table table;
    struct slice key, value;
    int rc;

    while ((rc = archive_record(archive, &table, &key, &value, err)) == SNAPSHOT_OK) {
        const uint64_t bytes = key.size + value.size + INSPECT_RECORD_BYTES;
        bool added = sums_add(&inspect->types, slice_from_text(inspect_types[table].name), bytes,
                              inspect_types[table].derived ? 0 : 1);

        if (options->details && table == STORE_KV && slice_starts_with(key, wanted)) {
            added = added && sums_add(&inspect->keys, key_group(key, options->depth), bytes, 1);
        }
        if (!added) {
            return errmsg_set(err, SNAPSHOT_ENOMEM, "out of memory");
        }
    }
    sums_finish(&inspect->types);
    sums_finish(&inspect->keys);
    return rc == SNAPSHOT_ENOTFOUND ? SNAPSHOT_OK : rc;
}

bool cli_inspect(struct archive *archive, const struct cli_inspect_options *options)
{
    const struct slice text = archive_description(archive);
    json_t *root = json_loadb(text.data, text.size, 0, NULL);
    const char *id = json_string_value(json_object_get(root, "ID"));
    struct inspect inspect = {0};
    struct errmsg err = {"out of memory"};
    bool done = inspect_read(archive, options, &inspect, &err) == SNAPSHOT_OK;

    id = id == NULL ? "" : id;
    if (done) {
        done = options->json ? print_json(archive, id, &inspect)
                             : print_pretty(archive, id, &inspect, options->details);
    }
    if (!done) {
        (void)fprintf(stderr, "Error extracting snapshot data: %s\n", err.text);
    }
    sums_deinit(&inspect.types);
    sums_deinit(&inspect.keys);
    json_decref(root);
    return done;
}
