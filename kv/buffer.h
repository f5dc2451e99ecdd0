#ifndef KV_BUFFER_H
#define KV_BUFFER_H

/* A growing byte buffer, and the encoding of everything stored in LMDB, in the Raft log and in RPC
 * frames: little-endian fixed-width integers, and strings as u32 size + bytes. A failed allocation
 * sticks in `failed`, so that an encoder may write on and check once. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kv/slice.h"

struct buffer {
    char *data;
    size_t size;
    size_t capacity;
    bool failed;
};

/* A zeroed struct is an empty buffer. */
void buffer_deinit(struct buffer *buffer); /* frees; the buffer is empty again */
void buffer_clear(struct buffer *buffer);  /* keeps the memory; clears `failed` */
/* Room for `size` more bytes; returns where to write them (buffer->size is not moved), NULL on
 * failure. */
char *buffer_reserve(struct buffer *buffer, size_t size);
void buffer_append(struct buffer *buffer, const void *data, size_t size);
void buffer_append_slice(struct buffer *buffer, struct slice slice);
void buffer_append_text(struct buffer *buffer, const char *text); /* without its NUL */
void buffer_append_char(struct buffer *buffer, char c);
void buffer_printf(struct buffer *buffer, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
struct slice buffer_slice(const struct buffer *buffer); /* valid until the next change */

void buffer_put_u8(struct buffer *buffer, uint8_t value);
void buffer_put_u16(struct buffer *buffer, uint16_t value);
void buffer_put_u32(struct buffer *buffer, uint32_t value);
void buffer_put_u64(struct buffer *buffer, uint64_t value);
void buffer_put_string(struct buffer *buffer, struct slice string);

/* Reads untrusted bytes. On short or bad input sets `failed` and returns zeros and empty slices, so
 * that a parser may read on and check once; no read ever passes `end`. Strings borrow from the
 * input. */
struct reader {
    const char *at;
    const char *end;
    bool failed;
};

struct reader reader_from(struct slice input);
uint8_t reader_u8(struct reader *reader);
uint16_t reader_u16(struct reader *reader);
uint32_t reader_u32(struct reader *reader);
uint64_t reader_u64(struct reader *reader);
struct slice reader_string(struct reader *reader);
struct slice reader_bytes(struct reader *reader, size_t size);
/* True when everything was read, and rightly. */
bool reader_done(const struct reader *reader);

/* A list of strings in encoded form (u32 count, then strings): what tags, metadata (key, value,
 * key, value, ...) and check lists are kept as. `null` is Go's nil, which JSON shows as null; a
 * zeroed strings is an empty list. Encoded as u8 null, u32 count, strings. */
struct strings {
    bool null;
    uint32_t count;
    struct slice packed; /* the strings, each u32 size + bytes; borrowed */
};

#define STRINGS_NULL ((struct strings){.null = true})

/* Building: strings_pack_add for each string, then strings_from_packed(buffer_slice(..), count),
 * which borrows the buffer's bytes (valid until the buffer changes). The buffer is the packer's
 * alone meanwhile. */
void strings_pack_add(struct buffer *buffer, struct slice string);
struct strings strings_from_packed(struct slice packed, uint32_t count);

void buffer_put_strings(struct buffer *buffer, struct strings strings);
struct strings
reader_strings(struct reader *reader); /* checked: iteration cannot fail afterwards */

/* Iteration: `struct reader it = strings_begin(list); struct slice s; while (strings_next(&it, &s))
 * ...` */
struct reader strings_begin(struct strings strings);
bool strings_next(struct reader *it, struct slice *out);
bool strings_contain(struct strings strings, struct slice string);        /* exact */
bool strings_contain_nocase(struct strings strings, struct slice string); /* ASCII case folded */

#endif
