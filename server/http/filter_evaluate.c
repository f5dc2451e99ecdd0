/* Runs a filter's program over an object. */

#include <assert.h>
#include <string.h>

#include "server/http/filter_internal.h"

static struct slice json_slice(const json_t *value)
{
    return json_is_string(value) ? slice_from(json_string_value(value), json_string_length(value))
                                 : SLICE_EMPTY;
}

/* A member by a name that may be no C string. */
static const json_t *json_piece(const json_t *object, struct slice name)
{
    return json_is_object(object) ? json_object_getn(object, name.data, name.size) : NULL;
}

static bool value_contains(const struct filter_match *match, const json_t *value)
{
    size_t i;
    json_t *item;

    if (match->type == TYPE_MAP) {
        return json_piece(value, match->value) != NULL;
    }
    if (match->type == TYPE_STRINGS) {
        json_array_foreach(value, i, item)
        {
            if (slice_equal(json_slice(item), match->value)) {
                return true;
            }
        }
        return false;
    }
    const struct slice text = json_slice(value);
    return match->value.size == 0 ||
           (text.size > 0 &&
            memmem(text.data, text.size, match->value.data, match->value.size) != NULL);
}

static bool value_equals(const struct filter_match *match, const json_t *value)
{
    if (match->type == TYPE_INT) {
        return json_integer_value(value) == match->number;
    }
    if (match->type == TYPE_BOOL) {
        return json_is_true(value) == match->flag;
    }
    return slice_equal(json_slice(value), match->value);
}

/* One comparison with one value; NULL: the answer leaves it out. */
static bool value_matches(const struct filter_match *match, const json_t *value)
{
    switch (match->comparison) {
    case OPERATOR_EQUAL:
        return value_equals(match, value);
    case OPERATOR_NOT_EQUAL:
        return !value_equals(match, value);
    case OPERATOR_IN:
        return value_contains(match, value);
    case OPERATOR_NOT_IN:
        return !value_contains(match, value);
    case OPERATOR_EMPTY:
        return json_object_size(value) == 0 && json_array_size(value) == 0;
    case OPERATOR_NOT_EMPTY:
        return json_object_size(value) > 0 || json_array_size(value) > 0;
    case OPERATOR_MATCHES:
        return regex_matches(match->regex, json_slice(value));
    case OPERATOR_NOT_MATCHES:
        return !regex_matches(match->regex, json_slice(value));
    }
    return false;
}

/* From `object` on through the pieces from `piece` on; no list lies on the way. */
static bool match_below(const struct filter_match *match, const json_t *object, size_t piece)
{
    for (; piece < match->selector.count; piece++) {
        object = json_piece(object, match->selector.pieces[piece]);
    }
    if (object == NULL && match->of_map) {
        return match->comparison != OPERATOR_EQUAL && match->comparison != OPERATOR_IN;
    }
    return value_matches(match, object);
}

/* As far as a list, of which any element will do. */
static bool match_run(const struct filter_match *match, const json_t *object)
{
    size_t i;
    json_t *item;

    for (size_t piece = 0; piece < match->selector.count; piece++) {
        object = json_piece(object, match->selector.pieces[piece]);
        if (piece == match->list_piece) { /* Left out: empty. */
            json_array_foreach(object, i, item)
            {
                if (match_below(match, item, piece + 1)) {
                    return true;
                }
            }
            return false;
        }
    }
    return match_below(match, object, match->selector.count);
}

bool filter_matches(struct filter *filter, const json_t *object)
{
    bool stack[FILTER_DEPTH_MAX + FILTER_MATCHES_MAX];
    size_t depth = 0;
    size_t next = 0;

    for (size_t i = 0; i < filter->program_count; i++) {
        switch ((enum filter_step)filter->program[i]) {
        case STEP_MATCH:
            assert(next < filter->match_count);
            stack[depth++] = match_run(&filter->matches[next++], object);
            break;
        case STEP_NOT:
            assert(depth > 0);
            stack[depth - 1] = !stack[depth - 1];
            break;
        case STEP_AND:
        case STEP_OR:
            assert(depth > 1);
            depth--;
            if (filter->program[i] == STEP_AND) {
                stack[depth - 1] = stack[depth - 1] && stack[depth];
            } else {
                stack[depth - 1] = stack[depth - 1] || stack[depth];
            }
            break;
        case STEP_OPEN:
            assert(false); /* Parentheses are gone by now. */
            break;
        }
    }
    assert(depth == 1);
    return stack[0];
}
