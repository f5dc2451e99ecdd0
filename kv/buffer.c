#include "kv/buffer.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { BUFFER_CAPACITY_MIN = 64 };

/* A packed string is at least its own u32 size: bounds what a claimed count may be. */
enum { STRING_BYTES_MIN = sizeof(uint32_t) };

void buffer_deinit(struct buffer *buffer)
{
    free(buffer->data);
    *buffer = (struct buffer){0};
}

void buffer_clear(struct buffer *buffer)
{
    buffer->size = 0;
    buffer->failed = false;
}

char *buffer_reserve(struct buffer *buffer, size_t size)
{
    assert(buffer->size <= buffer->capacity);
    if (buffer->failed) {
        return NULL;
    }
    if (size > SIZE_MAX / 2 - buffer->size) {
        buffer->failed = true;
        return NULL;
    }
    const size_t needed = buffer->size + size;
    if (needed > buffer->capacity || buffer->data == NULL) {
        size_t capacity = buffer->capacity * 2;
        if (capacity < needed) {
            capacity = needed;
        }
        if (capacity < BUFFER_CAPACITY_MIN) {
            capacity = BUFFER_CAPACITY_MIN;
        }
        char *data = realloc(buffer->data, capacity);
        if (data == NULL) {
            buffer->failed = true;
            return NULL;
        }
        buffer->data = data;
        buffer->capacity = capacity;
    }
    return buffer->data + buffer->size;
}

void buffer_append(struct buffer *buffer, const void *data, size_t size)
{
    char *at = buffer_reserve(buffer, size);

    if (at == NULL || size == 0) {
        return;
    }
    memcpy(at, data, size);
    buffer->size += size;
}

void buffer_append_slice(struct buffer *buffer, struct slice slice)
{
    buffer_append(buffer, slice.data, slice.size);
}

void buffer_append_text(struct buffer *buffer, const char *text)
{
    buffer_append(buffer, text, strlen(text));
}

void buffer_append_char(struct buffer *buffer, char c)
{
    buffer_append(buffer, &c, 1);
}

void buffer_printf(struct buffer *buffer, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    const int size = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (size < 0) {
        buffer->failed = true;
        return;
    }

    /* vsnprintf wants room for a NUL, which does not count into the buffer's size. */
    char *at = buffer_reserve(buffer, (size_t)size + 1);
    if (at == NULL) {
        return;
    }
    va_start(arguments, format);
    (void)vsnprintf(at, (size_t)size + 1, format, arguments);
    va_end(arguments);
    buffer->size += (size_t)size;
}

struct slice buffer_slice(const struct buffer *buffer)
{
    return buffer->size == 0 ? SLICE_EMPTY : slice_from(buffer->data, buffer->size);
}

/* --- encoding --- */

/* Little-endian, byte by byte: neither the machine's order nor its alignment shows in what is
 * stored. */
static void buffer_put_number(struct buffer *buffer, uint64_t value, size_t size)
{
    uint8_t bytes[sizeof(value)];

    assert(size <= sizeof(bytes));
    for (size_t i = 0; i < size; i++) {
        bytes[i] = (uint8_t)(value >> (8 * i));
    }
    buffer_append(buffer, bytes, size);
}

void buffer_put_u8(struct buffer *buffer, uint8_t value)
{
    buffer_put_number(buffer, value, sizeof(value));
}

void buffer_put_u16(struct buffer *buffer, uint16_t value)
{
    buffer_put_number(buffer, value, sizeof(value));
}

void buffer_put_u32(struct buffer *buffer, uint32_t value)
{
    buffer_put_number(buffer, value, sizeof(value));
}

void buffer_put_u64(struct buffer *buffer, uint64_t value)
{
    buffer_put_number(buffer, value, sizeof(value));
}

void buffer_put_string(struct buffer *buffer, struct slice string)
{
    if (string.size > UINT32_MAX) {
        buffer->failed = true;
        return;
    }
    buffer_put_u32(buffer, (uint32_t)string.size);
    buffer_append_slice(buffer, string);
}

/* --- decoding --- */

struct reader reader_from(struct slice input)
{
    if (input.size == 0) {
        input = SLICE_EMPTY;
    }
    return (struct reader){.at = input.data, .end = input.data + input.size};
}

struct slice reader_bytes(struct reader *reader, size_t size)
{
    assert(reader->at <= reader->end);
    if (reader->failed || (size_t)(reader->end - reader->at) < size) {
        reader->failed = true;
        reader->at = reader->end;
        return SLICE_EMPTY;
    }
    const struct slice bytes = slice_from(reader->at, size);
    reader->at += size;
    return bytes;
}

static uint64_t reader_number(struct reader *reader, size_t size)
{
    const struct slice bytes = reader_bytes(reader, size);
    uint64_t value = 0;

    for (size_t i = 0; i < bytes.size; i++) {
        value |= (uint64_t)(uint8_t)bytes.data[i] << (8 * i);
    }
    return value;
}

uint8_t reader_u8(struct reader *reader)
{
    return (uint8_t)reader_number(reader, sizeof(uint8_t));
}

uint16_t reader_u16(struct reader *reader)
{
    return (uint16_t)reader_number(reader, sizeof(uint16_t));
}

uint32_t reader_u32(struct reader *reader)
{
    return (uint32_t)reader_number(reader, sizeof(uint32_t));
}

uint64_t reader_u64(struct reader *reader)
{
    return reader_number(reader, sizeof(uint64_t));
}

struct slice reader_string(struct reader *reader)
{
    const uint32_t size = reader_u32(reader);

    return reader_bytes(reader, size);
}

bool reader_done(const struct reader *reader)
{
    return !reader->failed && reader->at == reader->end;
}

/* --- lists of strings --- */

void strings_pack_add(struct buffer *buffer, struct slice string)
{
    buffer_put_string(buffer, string);
}

struct strings strings_from_packed(struct slice packed, uint32_t count)
{
    return (struct strings){.count = count, .packed = packed};
}

void buffer_put_strings(struct buffer *buffer, struct strings strings)
{
    assert(!strings.null || strings.count == 0);
    buffer_put_u8(buffer, strings.null ? 1 : 0);
    buffer_put_u32(buffer, strings.count);
    buffer_append_slice(buffer, strings.packed);
}

struct strings reader_strings(struct reader *reader)
{
    const uint8_t null = reader_u8(reader);
    const uint32_t count = reader_u32(reader);

    if (reader->failed || null > 1 || (null == 1 && count > 0) ||
        count > (size_t)(reader->end - reader->at) / STRING_BYTES_MIN) {
        reader->failed = true;
        reader->at = reader->end;
        return STRINGS_NULL;
    }
    const char *begin = reader->at;
    for (uint32_t i = 0; i < count; i++) {
        (void)reader_string(reader); /* Walked for its check alone. */
    }
    if (reader->failed) {
        return STRINGS_NULL;
    }
    return (struct strings){.null = null == 1,
                            .count = count,
                            .packed = slice_from(begin, (size_t)(reader->at - begin))};
}

struct reader strings_begin(struct strings strings)
{
    return reader_from(strings.packed);
}

bool strings_next(struct reader *it, struct slice *out)
{
    if (it->failed || it->at == it->end) {
        return false;
    }
    const struct slice string = reader_string(it);
    if (it->failed) {
        return false;
    }
    *out = string;
    return true;
}

bool strings_contain(struct strings strings, struct slice string)
{
    struct reader it = strings_begin(strings);
    struct slice each;

    while (strings_next(&it, &each)) {
        if (slice_equal(each, string)) {
            return true;
        }
    }
    return false;
}

bool strings_contain_nocase(struct strings strings, struct slice string)
{
    struct reader it = strings_begin(strings);
    struct slice each;

    while (strings_next(&it, &each)) {
        if (slice_equal_nocase(each, string)) {
            return true;
        }
    }
    return false;
}
