/* A compiled expression is a program for a machine that follows all paths at once (Thompson). */

#include "server/http/regex.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "server/http/regex_internal.h"

struct regex {
    size_t count; /* the position behind the last step is the match */
    struct regex_step *steps;
    struct regex_range *ranges;
    /* Positions to visit; a mark tells in which list one stands already. */
    uint16_t *lists[2];
    uint16_t *stack;
    uint64_t *marks;
    uint64_t mark;
    bool matched;
};

struct regex *regex_new(struct slice pattern, struct errmsg *err)
{
    struct regex_program *program = malloc(sizeof(*program));
    struct regex *regex = NULL;

    if (program == NULL) {
        (void)errmsg_set(err, -1, "out of memory");
        return NULL;
    }
    if (regex_compile(program, pattern, err) == 0) {
        const size_t positions = program->count + 1;

        /* In one piece, the widest first. The stack holds each position once. */
        regex = calloc(1, sizeof(*regex) + positions * sizeof(uint64_t) +
                              program->count * sizeof(struct regex_step) +
                              program->range_count * sizeof(struct regex_range) +
                              3 * positions * sizeof(uint16_t));
        if (regex == NULL) {
            (void)errmsg_set(err, -1, "out of memory");
        } else {
            regex->count = program->count;
            regex->marks = (uint64_t *)(regex + 1);
            regex->steps = (struct regex_step *)(regex->marks + positions);
            regex->ranges = (struct regex_range *)(regex->steps + program->count);
            regex->lists[0] = (uint16_t *)(regex->ranges + program->range_count);
            regex->lists[1] = regex->lists[0] + positions;
            regex->stack = regex->lists[1] + positions;
            memcpy(regex->steps, program->steps, program->count * sizeof(*regex->steps));
            memcpy(regex->ranges, program->ranges, program->range_count * sizeof(*regex->ranges));
        }
    }
    free(program);
    return regex;
}

void regex_free(struct regex *regex)
{
    free(regex);
}

size_t regex_steps(const struct regex *regex)
{
    return regex->count;
}

/* --- matching --- */

#define RUNE_NONE UINT32_MAX /* before the first and behind the last character */

/* What holds between two characters. */
static unsigned match_conditions(uint32_t before, uint32_t after)
{
    const bool edge = regex_is_word(before) != regex_is_word(after);

    return (before == RUNE_NONE ? AT_TEXT_BEGIN | AT_LINE_BEGIN : 0U) |
           (before == '\n' ? AT_LINE_BEGIN : 0U) |
           (after == RUNE_NONE ? AT_TEXT_END | AT_LINE_END : 0U) |
           (after == '\n' ? AT_LINE_END : 0U) | (edge ? AT_WORD_EDGE : AT_NO_WORD_EDGE);
}

/* Adds the position and all that can be reached from it without reading. */
static void match_add(struct regex *regex, uint16_t *list, size_t *count, size_t position,
                      unsigned conditions)
{
    size_t depth = 0;

    regex->stack[depth++] = (uint16_t)position;
    while (depth > 0) {
        size_t at = regex->stack[--depth];

        /* One way is followed at once, so that only the other one waits. */
        while (regex->marks[at] != regex->mark) {
            regex->marks[at] = regex->mark;
            if (at == regex->count) {
                regex->matched = true;
                return;
            }
            const struct regex_step *step = &regex->steps[at];

            if (step->kind == STEP_SPLIT) {
                assert(depth <= regex->count);
                regex->stack[depth++] = (uint16_t)((int)at + step->to);
                at++;
            } else if (step->kind == STEP_JUMP) {
                at = (size_t)((ptrdiff_t)at + step->to);
            } else if (step->kind != STEP_IF) {
                list[(*count)++] = (uint16_t)at;
            } else if ((step->rune & conditions) != 0) {
                at++;
            }
        }
    }
}

/* Whether one of the ranges, which are in order, has it. */
static bool ranges_have(const struct regex_range *ranges, size_t count, uint32_t rune)
{
    size_t low = 0;

    while (low < count) {
        const size_t middle = low + (count - low) / 2;

        if (rune < ranges[middle].low) {
            count = middle;
        } else if (rune > ranges[middle].high) {
            low = middle + 1;
        } else {
            return true;
        }
    }
    return false;
}

static bool step_takes(const struct regex *regex, const struct regex_step *step, uint32_t rune)
{
    switch ((enum regex_kind)step->kind) {
    case STEP_RUNE:
        return step->rune == rune;
    case STEP_FOLD:
        return step->rune == regex_fold(rune);
    case STEP_ANY:
        return true;
    case STEP_LINE:
        return rune != '\n';
    case STEP_CLASS:
        return ranges_have(regex->ranges + step->rune, step->count, rune);
    case STEP_SPLIT:
    case STEP_JUMP:
    case STEP_IF:
        break; /* in no list */
    }
    return false;
}

bool regex_matches(struct regex *regex, struct slice text)
{
    size_t at = 0;
    size_t counts[2] = {0, 0};
    uint32_t rune = text.size == 0 ? RUNE_NONE : rune_next(text, &at);

    regex->mark++;
    regex->matched = false;
    match_add(regex, regex->lists[0], &counts[0], 0, match_conditions(RUNE_NONE, rune));
    for (unsigned now = 0; !regex->matched && rune != RUNE_NONE; now = 1 - now) {
        const uint32_t next = at == text.size ? RUNE_NONE : rune_next(text, &at);
        const unsigned conditions = match_conditions(rune, next);

        counts[1 - now] = 0;
        regex->mark++;
        for (size_t i = 0; i < counts[now]; i++) {
            const size_t position = regex->lists[now][i];

            if (step_takes(regex, &regex->steps[position], rune)) {
                match_add(regex, regex->lists[1 - now], &counts[1 - now], position + 1, conditions);
            }
        }
        /* A match may also begin here. */
        match_add(regex, regex->lists[1 - now], &counts[1 - now], 0, conditions);
        rune = next;
    }
    return regex->matched;
}
