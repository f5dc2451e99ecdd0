/* A compiled expression is a program for a machine that follows all paths at once (Thompson). Jumps
 * are relative, so that a piece of program can be moved and repeated. */

#include "server/http/regex.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>

enum regex_kind { STEP_BYTE, STEP_ANY, STEP_CLASS, STEP_SPLIT, STEP_JUMP, STEP_BEGIN, STEP_END };

struct regex_step {
    uint8_t kind;
    uint8_t byte;  /* STEP_BYTE, or the class's number */
    int16_t first; /* STEP_JUMP, STEP_SPLIT: where to, from here */
    int16_t second;
};

struct regex_class {
    uint8_t bits[32];
};

struct regex {
    struct regex_step steps[REGEX_STEPS_MAX];
    size_t count; /* the position behind the last step is the match */
    struct regex_class classes[REGEX_CLASSES_MAX];
    size_t class_count;
    /* Positions to visit; a mark tells in which list one stands already. */
    uint16_t lists[2][REGEX_STEPS_MAX + 1];
    uint16_t stack[2 * REGEX_STEPS_MAX + 2];
    uint64_t marks[REGEX_STEPS_MAX + 1];
    uint64_t mark;
};

static_assert(REGEX_STEPS_MAX <= INT16_MAX, "jumps are 16 bits wide");
static_assert(REGEX_CLASSES_MAX <= UINT8_MAX, "classes are numbered in 8 bits");

/* --- compiling --- */

struct compiler {
    struct regex *regex;
    struct slice pattern;
    size_t at;
    const char *fault; /* the first one */
    unsigned depth;
};

static void compile_fail(struct compiler *compiler, const char *fault)
{
    if (compiler->fault == NULL) {
        compiler->fault = fault;
    }
}

static bool compile_more(const struct compiler *compiler)
{
    return compiler->fault == NULL && compiler->at < compiler->pattern.size;
}

static char compile_peek(const struct compiler *compiler)
{
    return compiler->pattern.data[compiler->at];
}

/* Makes room for `count` steps at `at`. */
static bool compile_insert(struct compiler *compiler, size_t at, size_t count)
{
    struct regex *regex = compiler->regex;

    if (regex->count + count > REGEX_STEPS_MAX) {
        compile_fail(compiler, "expression too large");
        return false;
    }
    memmove(&regex->steps[at + count], &regex->steps[at],
            (regex->count - at) * sizeof(regex->steps[0]));
    regex->count += count;
    return true;
}

static void compile_put(struct compiler *compiler, enum regex_kind kind, unsigned byte)
{
    const size_t at = compiler->regex->count;

    if (compile_insert(compiler, at, 1)) {
        compiler->regex->steps[at] =
            (struct regex_step){.kind = (uint8_t)kind, .byte = (uint8_t)byte};
    }
}

/* A split or jump at `at` to `first` and `second`, absolute positions. */
static void compile_branch(struct compiler *compiler, size_t at, enum regex_kind kind, size_t first,
                           size_t second)
{
    compiler->regex->steps[at] = (struct regex_step){.kind = (uint8_t)kind,
                                                     .first = (int16_t)((int)first - (int)at),
                                                     .second = (int16_t)((int)second - (int)at)};
}

static void class_add(struct regex_class *class, unsigned low, unsigned high)
{
    for (unsigned byte = low; byte <= high; byte++) {
        class->bits[byte / 8] |= (uint8_t)(1u << (byte % 8));
    }
}

static void class_invert(struct regex_class *class)
{
    for (size_t i = 0; i < sizeof(class->bits); i++) {
        class->bits[i] = (uint8_t) ~class->bits[i];
    }
}

/* \d and its like; false when the letter is none. */
static bool class_add_named(struct regex_class *class, char letter)
{
    struct regex_class named = {{0}};

    switch (slice_lower(letter)) {
    case 'd':
        class_add(&named, '0', '9');
        break;
    case 'w':
        class_add(&named, '0', '9');
        class_add(&named, 'A', 'Z');
        class_add(&named, 'a', 'z');
        class_add(&named, '_', '_');
        break;
    case 's':
        class_add(&named, '\t', '\n');
        class_add(&named, '\f', '\r');
        class_add(&named, ' ', ' ');
        break;
    default:
        return false;
    }
    if (letter != slice_lower(letter)) {
        class_invert(&named);
    }
    for (size_t i = 0; i < sizeof(class->bits); i++) {
        class->bits[i] |= named.bits[i];
    }
    return true;
}

static void compile_class(struct compiler *compiler, const struct regex_class *class)
{
    struct regex *regex = compiler->regex;

    if (regex->class_count == REGEX_CLASSES_MAX) {
        compile_fail(compiler, "expression too large");
        return;
    }
    regex->classes[regex->class_count] = *class;
    compile_put(compiler, STEP_CLASS, (unsigned)regex->class_count++);
}

/* What a backslash makes of a character; -1 when it has no meaning. */
static int escaped_byte(char c)
{
    switch (c) {
    case 'n':
        return '\n';
    case 't':
        return '\t';
    case 'r':
        return '\r';
    case 'f':
        return '\f';
    case 'v':
        return '\v';
    case 'a':
        return '\a';
    default:
        break;
    }
    const char lower = slice_lower(c);
    const bool word = (lower >= 'a' && lower <= 'z') || (c >= '0' && c <= '9') || (c & 0x80) != 0;
    return word ? -1 : (unsigned char)c;
}

static void compile_escape(struct compiler *compiler)
{
    struct regex_class class = {{0}};

    if (!compile_more(compiler)) {
        compile_fail(compiler, "trailing backslash at end of expression");
        return;
    }
    const char c = compiler->pattern.data[compiler->at++];
    const int byte = escaped_byte(c);
    if (byte >= 0) {
        compile_put(compiler, STEP_BYTE, (unsigned)byte);
    } else if (class_add_named(&class, c)) {
        compile_class(compiler, &class);
    } else {
        compile_fail(compiler, "invalid escape sequence");
    }
}

/* One end of a range, or a whole named class (*named). */
static int bracket_byte(struct compiler *compiler, struct regex_class *class, bool *named)
{
    const char c = compiler->pattern.data[compiler->at++];

    *named = false;
    if ((c & 0x80) != 0) {
        compile_fail(compiler, "unsupported character class");
    } else if (c == '\\' && compile_more(compiler)) {
        const char escaped = compiler->pattern.data[compiler->at++];
        const int byte = escaped_byte(escaped);

        *named = byte < 0 && class_add_named(class, escaped);
        if (byte < 0 && !*named) {
            compile_fail(compiler, "invalid escape sequence");
        }
        return byte;
    } else if (c == '[' && compile_more(compiler) && compile_peek(compiler) == ':') {
        compile_fail(compiler, "unsupported character class");
    }
    return (unsigned char)c;
}

static void compile_bracket(struct compiler *compiler)
{
    struct regex_class class = {{0}};
    bool first = true;
    bool named;
    const bool inverted = compile_more(compiler) && compile_peek(compiler) == '^';

    compiler->at += inverted;
    for (; compile_more(compiler) && (first || compile_peek(compiler) != ']'); first = false) {
        const int low = bracket_byte(compiler, &class, &named);
        int high = low;

        if (named || compiler->fault != NULL) {
            continue;
        }
        if (compiler->at + 1 < compiler->pattern.size && compile_peek(compiler) == '-' &&
            compiler->pattern.data[compiler->at + 1] != ']') {
            compiler->at++;
            high = bracket_byte(compiler, &class, &named);
        }
        if (named || high < low) {
            compile_fail(compiler, "invalid character class range");
        } else {
            class_add(&class, (unsigned)low, (unsigned)high);
        }
    }
    if (!compile_more(compiler)) {
        compile_fail(compiler, "missing closing ]");
        return;
    }
    compiler->at++;
    if (inverted) {
        class_invert(&class);
    }
    compile_class(compiler, &class);
}

/* "{n}", "{n,}" or "{n,m}" at the current position; anything else is literal, as in Go. */
static bool compile_bounds(struct compiler *compiler, unsigned *low, unsigned *high)
{
    size_t at = compiler->at + 1;
    unsigned numbers[2] = {0, 0};
    unsigned digits[2] = {0, 0};
    bool comma = false;

    for (; at < compiler->pattern.size && compiler->pattern.data[at] != '}'; at++) {
        const char c = compiler->pattern.data[at];
        if (c == ',' && !comma) {
            comma = true;
        } else if (c >= '0' && c <= '9' && digits[comma] < 5) {
            numbers[comma] = numbers[comma] * 10 + (unsigned)(c - '0');
            digits[comma]++;
        } else {
            return false;
        }
    }
    if (at == compiler->pattern.size || digits[0] == 0) {
        return false;
    }
    compiler->at = at + 1;
    *low = numbers[0];
    *high = !comma ? numbers[0] : digits[1] == 0 ? UINT32_MAX : numbers[1];
    if (*low > REGEX_REPEAT_MAX || (*high != UINT32_MAX && *high > REGEX_REPEAT_MAX) ||
        *high < *low) {
        compile_fail(compiler, "invalid repeat count");
    }
    return true;
}

/* Appends a copy of the piece `from`..`from + size`. */
static void compile_copy(struct compiler *compiler, size_t from, size_t size)
{
    const size_t at = compiler->regex->count;

    if (compile_insert(compiler, at, size)) {
        memcpy(&compiler->regex->steps[at], &compiler->regex->steps[from],
               size * sizeof(compiler->regex->steps[0]));
    }
}

/* Makes the piece that begins at `from`, up to the end, optional (`more`: any number of times). */
static void compile_optional(struct compiler *compiler, size_t from, bool more)
{
    if (!compile_insert(compiler, from, 1)) {
        return;
    }
    const size_t end = compiler->regex->count;
    if (more && compile_insert(compiler, end, 1)) {
        compile_branch(compiler, end, STEP_JUMP, from, from);
    }
    compile_branch(compiler, from, STEP_SPLIT, from + 1, compiler->regex->count);
}

static void compile_repeat(struct compiler *compiler, size_t from, unsigned low, unsigned high)
{
    const size_t size = compiler->regex->count - from;
    const bool endless = high == UINT32_MAX;
    const unsigned extra = endless ? 1 : high - low;

    for (unsigned i = 1; i < low + extra && compiler->fault == NULL; i++) {
        compile_copy(compiler, from, size);
    }
    if (compiler->fault != NULL) {
        return;
    }
    /* From the last one on, each wraps what comes after it: (x(x(x)?)?)? */
    for (unsigned i = 0; i < extra && compiler->fault == NULL; i++) {
        compile_optional(compiler, from + size * (low + extra - 1 - i), endless);
    }
    if (low == 0 && extra == 0) {
        compiler->regex->count = from; /* {0} */
    }
}

/* The operators behind a piece. */
static void compile_postfix(struct compiler *compiler, size_t from)
{
    bool repeated = false;

    while (compile_more(compiler)) {
        unsigned low = 0;
        unsigned high = UINT32_MAX;
        const char c = compile_peek(compiler);

        if (c == '{') {
            if (!compile_bounds(compiler, &low, &high)) {
                return;
            }
        } else if (c == '*' || c == '+' || c == '?') {
            low = c == '+';
            high = c == '?' ? 1 : UINT32_MAX;
            compiler->at++;
        } else {
            return;
        }
        if (repeated) {
            compile_fail(compiler, "invalid nested repetition operator");
            return;
        }
        repeated = true;
        if (compile_more(compiler) && compile_peek(compiler) == '?') {
            compiler->at++; /* Whether it takes much or little does not matter here. */
        }
        if (compiler->fault == NULL) {
            compile_repeat(compiler, from, low, high);
        }
    }
}

static void compile_alternatives(struct compiler *compiler);

static void compile_group(struct compiler *compiler)
{
    if (compiler->at + 1 < compiler->pattern.size && compile_peek(compiler) == '?') {
        if (compiler->pattern.data[compiler->at + 1] != ':') {
            compile_fail(compiler, "invalid or unsupported Perl syntax");
            return;
        }
        compiler->at += 2;
    }
    if (++compiler->depth > REGEX_DEPTH_MAX) {
        compile_fail(compiler, "expression nests too deeply");
        return;
    }
    compile_alternatives(compiler);
    compiler->depth--;
    if (!compile_more(compiler)) {
        compile_fail(compiler, "missing closing )");
        return;
    }
    assert(compile_peek(compiler) == ')');
    compiler->at++;
}

static void compile_piece(struct compiler *compiler)
{
    const size_t from = compiler->regex->count;
    const char c = compiler->pattern.data[compiler->at++];

    switch (c) {
    case '(':
        compile_group(compiler);
        break;
    case '[':
        compile_bracket(compiler);
        break;
    case '\\':
        compile_escape(compiler);
        break;
    case '.':
        compile_put(compiler, STEP_ANY, 0);
        break;
    case '^':
        compile_put(compiler, STEP_BEGIN, 0);
        break;
    case '$':
        compile_put(compiler, STEP_END, 0);
        break;
    case '*':
    case '+':
    case '?':
        compile_fail(compiler, "missing argument to repetition operator");
        break;
    default:
        compile_put(compiler, STEP_BYTE, (unsigned char)c);
    }
    compile_postfix(compiler, from);
}

/* Up to a closing parenthesis or the end. Calls itself for groups: no deeper than
 * REGEX_DEPTH_MAX. */
static void compile_alternatives(struct compiler *compiler)
{
    const size_t from = compiler->regex->count;

    while (compile_more(compiler) && compile_peek(compiler) != ')') {
        if (compile_peek(compiler) != '|') {
            compile_piece(compiler);
            continue;
        }
        /* What came so far, or what comes: a split before, and a jump over the rest behind. */
        compiler->at++;
        if (!compile_insert(compiler, from, 1)) {
            return;
        }
        const size_t jump = compiler->regex->count;
        if (!compile_insert(compiler, jump, 1)) {
            return;
        }
        compile_branch(compiler, from, STEP_SPLIT, from + 1, jump + 1);
        while (compile_more(compiler) && compile_peek(compiler) != ')' &&
               compile_peek(compiler) != '|') {
            compile_piece(compiler);
        }
        compile_branch(compiler, jump, STEP_JUMP, compiler->regex->count, compiler->regex->count);
    }
}

struct regex *regex_new(struct slice pattern, struct errmsg *err)
{
    struct regex *regex = calloc(1, sizeof(*regex));
    struct compiler compiler = {.regex = regex, .pattern = pattern};

    if (regex == NULL) {
        (void)errmsg_set(err, -1, "out of memory");
        return NULL;
    }
    compile_alternatives(&compiler);
    if (compile_more(&compiler)) {
        compile_fail(&compiler, "unexpected )");
    }
    if (compiler.fault != NULL) {
        const int size = pattern.size > 200 ? 200 : (int)pattern.size;
        (void)errmsg_set(err, -1, "error parsing regexp: %s: `%.*s`", compiler.fault, size,
                         size == 0 ? "" : pattern.data);
        free(regex);
        return NULL;
    }
    return regex;
}

void regex_free(struct regex *regex)
{
    free(regex);
}

/* --- matching --- */

/* Adds the position and all that can be reached from it without reading. */
static void match_add(struct regex *regex, uint16_t *list, size_t *count, size_t position,
                      bool begin, bool end)
{
    size_t depth = 0;

    regex->stack[depth++] = (uint16_t)position;
    while (depth > 0) {
        const size_t at = regex->stack[--depth];
        const struct regex_step *step = &regex->steps[at];

        if (regex->marks[at] == regex->mark) {
            continue;
        }
        regex->marks[at] = regex->mark;
        if (at == regex->count) {
            list[(*count)++] = (uint16_t)at;
        } else if (step->kind == STEP_JUMP || step->kind == STEP_SPLIT) {
            regex->stack[depth++] = (uint16_t)((int)at + step->first);
            if (step->kind == STEP_SPLIT) {
                regex->stack[depth++] = (uint16_t)((int)at + step->second);
            }
        } else if (step->kind == STEP_BEGIN || step->kind == STEP_END) {
            if (step->kind == STEP_BEGIN ? begin : end) {
                regex->stack[depth++] = (uint16_t)(at + 1);
            }
        } else {
            list[(*count)++] = (uint16_t)at;
        }
        assert(depth < sizeof(regex->stack) / sizeof(regex->stack[0]) - 1);
    }
}

static bool step_takes(const struct regex *regex, const struct regex_step *step, unsigned char byte)
{
    switch ((enum regex_kind)step->kind) {
    case STEP_BYTE:
        return step->byte == byte;
    case STEP_ANY:
        return byte != '\n';
    case STEP_CLASS:
        return (regex->classes[step->byte].bits[byte / 8] >> (byte % 8) & 1) != 0;
    case STEP_SPLIT:
    case STEP_JUMP:
    case STEP_BEGIN:
    case STEP_END:
        break;
    }
    return false;
}

bool regex_matches(struct regex *regex, struct slice text)
{
    size_t counts[2] = {0, 0};

    regex->mark++;
    match_add(regex, regex->lists[0], &counts[0], 0, true, text.size == 0);
    for (size_t at = 0;; at++) {
        const size_t now = at % 2;

        for (size_t i = 0; i < counts[now]; i++) {
            if (regex->lists[now][i] == regex->count) {
                return true;
            }
        }
        if (at == text.size) {
            return false;
        }
        counts[1 - now] = 0;
        regex->mark++;
        for (size_t i = 0; i < counts[now]; i++) {
            const size_t position = regex->lists[now][i];

            if (step_takes(regex, &regex->steps[position], (unsigned char)text.data[at])) {
                match_add(regex, regex->lists[1 - now], &counts[1 - now], position + 1, false,
                          at + 1 == text.size);
            }
        }
        /* A match may also begin here. */
        match_add(regex, regex->lists[1 - now], &counts[1 - now], 0, false, at + 1 == text.size);
    }
}
