/* The bytes of headers and records: docs/wal-format.md. Numbers are little-endian. */

#include <assert.h>
#include <string.h>

#include "raft/wal_internal.h"

static const uint8_t wal_magic[8] = {'P', 'C', 'R', 'A', 'F', 'T', 'L', 'G'};

static_assert(WAL_HEADER_BYTES <= WAL_FIRST_OFFSET, "the header fits before the first record");
static_assert(WAL_FIRST_OFFSET % WAL_ALIGN_BYTES == 0, "records are aligned");
static_assert(WAL_RECORD_BYTES % WAL_ALIGN_BYTES == 0, "records are aligned");
static_assert(WAL_FIRST_OFFSET + 4 * WAL_RECORD_BYTES < WAL_SEGMENT_BYTES_MIN,
              "the smallest segment has room for a record, its mark, a closing mark and a seal");
static_assert((WAL_SEGMENT_BYTES_MAX + (uint64_t)WAL_WRITE_BYTES_MAX) / WAL_ALIGN_BYTES <
                  UINT32_MAX,
              "every offset in a segment fits wal_position.offset_units");

static void put_u32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++) {
        at[i] = (uint8_t)(value >> (8 * i));
    }
}

static void put_u64(uint8_t *at, uint64_t value)
{
    for (int i = 0; i < 8; i++) {
        at[i] = (uint8_t)(value >> (8 * i));
    }
}

static uint32_t get_u32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static uint64_t get_u64(const uint8_t *at)
{
    return (uint64_t)get_u32(at) | (uint64_t)get_u32(at + 4) << 32;
}

void wal_header_encode(const struct wal_crc32c *crc32c, const struct wal_header *header,
                       uint8_t out[WAL_HEADER_BYTES])
{
    memset(out, 0, WAL_HEADER_BYTES);
    memcpy(out, wal_magic, sizeof(wal_magic));
    put_u32(out + 8, header->version);
    put_u32(out + 12, header->salt);
    put_u64(out + 16, header->id);
    put_u64(out + 24, header->bytes);
    put_u64(out + 32, header->next);
    put_u64(out + 40, header->prev_term);
    put_u64(out + 48, header->term);
    put_u64(out + 56, header->vote);
    put_u64(out + 64, header->prev_end);
    put_u32(out + WAL_HEADER_BYTES - 4, wal_crc32c(crc32c, 0, out, WAL_HEADER_BYTES - 4));
}

int wal_header_decode(const struct wal_crc32c *crc32c, const uint8_t *bytes, size_t size,
                      struct wal_header *out)
{
    if (size < WAL_HEADER_BYTES || memcmp(bytes, wal_magic, sizeof(wal_magic)) != 0) {
        return WAL_ECORRUPT;
    }
    /* Before the checksum: a newer version may have put it elsewhere. */
    if (get_u32(bytes + 8) > WAL_FORMAT_VERSION) {
        return WAL_EFORMAT;
    }
    if (get_u32(bytes + WAL_HEADER_BYTES - 4) !=
        wal_crc32c(crc32c, 0, bytes, WAL_HEADER_BYTES - 4)) {
        return WAL_ECORRUPT;
    }
    struct wal_header header = {
        .version = get_u32(bytes + 8),
        .salt = get_u32(bytes + 12),
        .id = get_u64(bytes + 16),
        .bytes = get_u64(bytes + 24),
        .next = get_u64(bytes + 32),
        .prev_term = get_u64(bytes + 40),
        .term = get_u64(bytes + 48),
        .vote = get_u64(bytes + 56),
        .prev_end = get_u64(bytes + 64),
    };
    /* The largest that is ever made: the option's bound, or one write alone in its segment. */
    if (header.version == 0 || header.id == 0 || header.next == 0 ||
        header.bytes < WAL_SEGMENT_BYTES_MIN || header.bytes % WAL_ALIGN_BYTES != 0 ||
        header.bytes > (uint64_t)WAL_SEGMENT_BYTES_MAX + WAL_WRITE_BYTES_MAX) {
        return WAL_ECORRUPT;
    }
    *out = header;
    return WAL_OK;
}

void wal_record_encode(const struct wal_record *record, uint8_t out[WAL_RECORD_BYTES])
{
    put_u32(out + 4, record->size);
    out[12] = record->type;
    out[13] = record->entry_type;
    out[14] = 0;
    out[15] = 0;
    put_u64(out + 16, record->index);
    put_u64(out + 24, record->term);
}

void wal_record_seal(const struct wal_crc32c *crc32c, uint32_t salt, uint32_t batch, uint8_t *bytes)
{
    uint64_t span = wal_record_span(get_u32(bytes + 4));

    put_u32(bytes + 8, batch);
    put_u32(bytes, wal_crc32c(crc32c, salt, bytes + 4, span - 4));
}

struct wal_record wal_record_head(const uint8_t bytes[WAL_RECORD_BYTES])
{
    return (struct wal_record){
        .size = get_u32(bytes + 4),
        .type = bytes[12],
        .entry_type = bytes[13],
        .index = get_u64(bytes + 16),
        .term = get_u64(bytes + 24),
    };
}

uint32_t wal_record_batch(const uint8_t bytes[WAL_RECORD_BYTES])
{
    return get_u32(bytes + 8);
}

bool wal_record_decode(const struct wal_crc32c *crc32c, uint32_t salt, const uint8_t *bytes,
                       uint64_t size, uint64_t offset, struct wal_record *out)
{
    if (offset > size || size - offset < WAL_RECORD_BYTES) {
        return false;
    }
    const uint8_t *at = bytes + offset;
    struct wal_record record = wal_record_head(at);
    record.batch = wal_record_batch(at);
    if (record.type < WAL_RECORD_ENTRY || record.type > WAL_RECORD_SEAL || record.batch == 0) {
        return false;
    }
    if (record.type != WAL_RECORD_ENTRY && record.size != 0) {
        return false;
    }
    uint64_t span = wal_record_span(record.size);
    if (span > size - offset) {
        return false;
    }
    if (get_u32(at) != wal_crc32c(crc32c, salt, at + 4, span - 4)) {
        return false;
    }
    *out = record;
    return true;
}
