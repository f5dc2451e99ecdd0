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

void wal_header_encode(const struct crc32c *crc32c, const struct wal_header *header,
                       uint8_t out[WAL_HEADER_BYTES])
{
    memset(out, 0, WAL_HEADER_BYTES);
    memcpy(out, wal_magic, sizeof(wal_magic));
    wal_put_u32(out + 8, header->version);
    wal_put_u32(out + 12, header->salt);
    wal_put_u64(out + 16, header->id);
    wal_put_u64(out + 24, header->bytes);
    wal_put_u64(out + 32, header->next);
    wal_put_u64(out + 40, header->prev_term);
    wal_put_u64(out + 48, header->term);
    wal_put_u64(out + 56, header->vote);
    wal_put_u64(out + 64, header->prev_end);
    wal_put_u32(out + WAL_HEADER_BYTES - 4, crc32c_update(crc32c, 0, out, WAL_HEADER_BYTES - 4));
}

int wal_header_decode(const struct crc32c *crc32c, const uint8_t *bytes, size_t size,
                      struct wal_header *out)
{
    if (size < WAL_HEADER_BYTES || memcmp(bytes, wal_magic, sizeof(wal_magic)) != 0) {
        return WAL_ECORRUPT;
    }
    /* Before the checksum: a newer version may have put it elsewhere. */
    if (wal_get_u32(bytes + 8) > WAL_FORMAT_VERSION) {
        return WAL_EFORMAT;
    }
    if (wal_get_u32(bytes + WAL_HEADER_BYTES - 4) !=
        crc32c_update(crc32c, 0, bytes, WAL_HEADER_BYTES - 4)) {
        return WAL_ECORRUPT;
    }
    struct wal_header header = {
        .version = wal_get_u32(bytes + 8),
        .salt = wal_get_u32(bytes + 12),
        .id = wal_get_u64(bytes + 16),
        .bytes = wal_get_u64(bytes + 24),
        .next = wal_get_u64(bytes + 32),
        .prev_term = wal_get_u64(bytes + 40),
        .term = wal_get_u64(bytes + 48),
        .vote = wal_get_u64(bytes + 56),
        .prev_end = wal_get_u64(bytes + 64),
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
    wal_put_u32(out + 4, record->size);
    out[12] = record->type;
    out[13] = record->entry_type;
    out[14] = 0;
    out[15] = 0;
    wal_put_u64(out + 16, record->index);
    wal_put_u64(out + 24, record->term);
}

void wal_record_seal(const struct crc32c *crc32c, uint32_t salt, uint32_t batch, uint8_t *bytes)
{
    uint64_t span = wal_record_span(wal_get_u32(bytes + 4));

    wal_put_u32(bytes + 8, batch);
    wal_put_u32(bytes, crc32c_update(crc32c, salt, bytes + 4, span - 4));
}

bool wal_record_decode(const struct crc32c *crc32c, uint32_t salt, const uint8_t *bytes,
                       uint64_t size, uint64_t offset, struct wal_record *out)
{
    if (offset > size || size - offset < WAL_RECORD_BYTES) {
        return false;
    }
    const uint8_t *at = bytes + offset;
    struct wal_record record = wal_record_head(at);
    record.batch = wal_record_batch(at);
    if (record.type < WAL_RECORD_ENTRY || record.type > WAL_RECORD_TYPE_LAST || record.batch == 0) {
        return false;
    }
    if (record.type != WAL_RECORD_ENTRY && record.size != 0) {
        return false;
    }
    uint64_t span = wal_record_span(record.size);
    if (span > size - offset) {
        return false;
    }
    if (wal_get_u32(at) != crc32c_update(crc32c, salt, at + 4, span - 4)) {
        return false;
    }
    *out = record;
    return true;
}
