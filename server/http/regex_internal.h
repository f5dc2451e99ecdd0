#ifndef SERVER_HTTP_REGEX_INTERNAL_H
#define SERVER_HTTP_REGEX_INTERNAL_H

/* What the files of regular expressions share: regex_compile.c reads a pattern, regex_class.c its
 * sets of characters, regex.c runs the program that comes of it. */

#include <stdint.h>

#include "server/http/regex.h"
#include "server/http/rune.h"

enum regex_kind {
    STEP_RUNE,  /* takes `rune` */
    STEP_FOLD,  /* takes `rune`, a letter in lower case, in either case */
    STEP_ANY,   /* takes any character */
    STEP_LINE,  /* takes any character but \n */
    STEP_CLASS, /* takes what is in `count` ranges from `rune` on */
    STEP_SPLIT, /* goes on behind itself, and at `to` */
    STEP_JUMP,  /* goes on at `to` */
    STEP_IF,    /* goes on where a condition of `rune` holds */
};

enum regex_condition {
    AT_TEXT_BEGIN = 1,
    AT_TEXT_END = 2,
    AT_LINE_BEGIN = 4,
    AT_LINE_END = 8,
    AT_WORD_EDGE = 16, /* a word begins or ends */
    AT_NO_WORD_EDGE = 32,
};

struct regex_step {
    uint8_t kind;
    uint16_t count;
    int16_t to; /* from here, so that a piece of program can be moved and repeated */
    uint32_t rune;
};

struct regex_range {
    uint32_t low, high;
};

/* What upper case and the two characters that fold into ASCII are alike to. */
static inline uint32_t regex_fold(uint32_t rune)
{
    if (rune >= 'A' && rune <= 'Z') {
        return rune + ('a' - 'A');
    }
    return rune == 0x212a ? 'k' : rune == 0x17f ? 's' : rune; /* Kelvin, the long s */
}

static inline bool regex_is_word(uint32_t rune)
{
    return (rune >= '0' && rune <= '9') || (rune >= 'A' && rune <= 'Z') || rune == '_' ||
           (rune >= 'a' && rune <= 'z');
}

/* --- regex_class.c: sets of characters --- */

/* One that is being read. */
struct regex_class {
    struct regex_range ranges[REGEX_RANGES_MAX];
    size_t count;
    bool folded; /* (?i): every ASCII letter comes in both cases */
    bool full;   /* there was no room for a range */
};

void regex_class_add(struct regex_class *class, uint32_t low, uint32_t high);
/* Adds a set by its name, "d" as in \d or "alpha" as in [:alpha:], or what is not in it. False:
 * there is none of this name. */
bool regex_class_add_named(struct regex_class *class, struct slice name, bool negated);
/* Puts the ranges from the one at `from` on in order, each apart from the next; `negated`: they
 * become what they left out. */
void regex_class_settle(struct regex_class *class, size_t from, bool negated);

/* --- regex_compile.c: from the pattern to a program --- */

struct regex_program {
    struct regex_step steps[REGEX_STEPS_MAX];
    size_t count; /* the position behind the last step is the match */
    struct regex_range ranges[REGEX_RANGES_MAX];
    size_t range_count;
};

/* Returns 0, or -1 with the fault in `err`. */
int regex_compile(struct regex_program *program, struct slice pattern, struct errmsg *err);

#endif
