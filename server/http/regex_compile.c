/* From a pattern to a program, in one pass: what is read last can still be repeated, made optional,
 * or become one of several alternatives, by steps that are put before and behind it. */

#include <stdlib.h>
#include <string.h>

#include "server/http/regex_internal.h"

#define NOWHERE SIZE_MAX

enum regex_flag { FLAG_FOLD = 1, FLAG_LINES = 2, FLAG_DOT_ALL = 4, FLAG_LAZY = 8 };

struct regex_group {
    size_t from;    /* its first step */
    size_t jump;    /* the jump behind the alternative before the last one; or NOWHERE */
    unsigned flags; /* before it */
};

struct compiler {
    struct regex_program *program;
    struct slice pattern;
    size_t at;
    const char *fault; /* the first one, */
    struct slice part; /* and of what */
    unsigned flags;
    struct regex_group groups[REGEX_DEPTH_MAX + 1]; /* the first is the whole */
    size_t depth;
    size_t piece;      /* the first step of what a repetition would repeat; or NOWHERE */
    size_t repetition; /* where in the pattern the one stands that ends here; or NOWHERE */
    struct regex_class class;
};

/* --- reading --- */

/* The fault is what was read from `from` on. */
static void compile_fail(struct compiler *compiler, const char *fault, size_t from)
{
    if (compiler->fault == NULL) {
        compiler->fault = fault;
        compiler->part = slice_from(compiler->pattern.data + from, compiler->at - from);
    }
}

/* The same of all that follows, too. */
static void compile_fail_to_end(struct compiler *compiler, const char *fault, size_t from)
{
    compiler->at = compiler->pattern.size;
    compile_fail(compiler, fault, from);
}

/* The byte that is `ahead`; -1 behind the end. */
static int compile_peek(const struct compiler *compiler, size_t ahead)
{
    return ahead < compiler->pattern.size - compiler->at
               ? (unsigned char)compiler->pattern.data[compiler->at + ahead]
               : -1;
}

static uint32_t compile_next(struct compiler *compiler)
{
    return rune_next(compiler->pattern, &compiler->at);
}

static bool compile_text(struct compiler *compiler, const char *text)
{
    const struct slice rest =
        slice_from(compiler->pattern.data + compiler->at, compiler->pattern.size - compiler->at);

    if (!slice_starts_with(rest, slice_from_text(text))) {
        return false;
    }
    compiler->at += strlen(text);
    return true;
}

/* --- writing --- */

static void compile_fail_size(struct compiler *compiler)
{
    compile_fail_to_end(compiler, "expression too large", 0);
}

/* Makes room for `count` steps at `at`. */
static bool compile_insert(struct compiler *compiler, size_t at, size_t count)
{
    struct regex_program *program = compiler->program;

    if (count > REGEX_STEPS_MAX - program->count) {
        compile_fail_size(compiler);
        return false;
    }
    memmove(&program->steps[at + count], &program->steps[at],
            (program->count - at) * sizeof(program->steps[0]));
    program->count += count;
    return true;
}

/* Puts a step there; both it and where it goes are positions after that. */
static bool compile_branch(struct compiler *compiler, size_t at, enum regex_kind kind, size_t to)
{
    if (!compile_insert(compiler, at, 1)) {
        return false;
    }
    compiler->program->steps[at] =
        (struct regex_step){.kind = (uint8_t)kind, .to = (int16_t)((int)to - (int)at)};
    return true;
}

/* A piece of one step. */
static void compile_put(struct compiler *compiler, enum regex_kind kind, uint32_t rune,
                        size_t count)
{
    const size_t at = compiler->program->count;

    if (compile_insert(compiler, at, 1)) {
        compiler->program->steps[at] =
            (struct regex_step){.kind = (uint8_t)kind, .count = (uint16_t)count, .rune = rune};
        compiler->piece = at;
    }
}

/* --- characters --- */

static bool compile_folds(struct compiler *compiler, uint32_t high)
{
    if ((compiler->flags & FLAG_FOLD) != 0 && high >= 0x80) {
        compile_fail_to_end(compiler, "(?i) with characters beyond ASCII is not supported", 0);
    }
    return (compiler->flags & FLAG_FOLD) != 0;
}

static void compile_literal(struct compiler *compiler, uint32_t rune)
{
    const uint32_t folded = regex_fold(rune);
    const bool letter = folded >= 'a' && folded <= 'z';

    if (compile_folds(compiler, rune) && letter) {
        compile_put(compiler, STEP_FOLD, folded, 0);
    } else {
        compile_put(compiler, STEP_RUNE, rune, 0);
    }
}

static int hex_value(int c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 'a' ^ 'A';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Behind \x: two digits, or some in braces. False: none such. */
static bool compile_hex(struct compiler *compiler, uint32_t *rune)
{
    const bool braces = compile_text(compiler, "{");
    size_t digits = 0;

    for (*rune = 0; *rune <= RUNE_MAX && (braces || digits < 2); digits++) {
        const int c = compile_peek(compiler, 0);

        if (c < 0) {
            return false;
        }
        (void)compile_next(compiler);
        if (braces && c == '}') {
            return digits > 0;
        }
        if (hex_value(c) < 0) {
            return false;
        }
        *rune = *rune << 4 | (uint32_t)hex_value(c);
    }
    return !braces;
}

/* Behind \: what stands for one character. False: nothing does. */
static bool compile_escaped(struct compiler *compiler, uint32_t *rune)
{
    static const char from[] = "afnrtv";
    static const char to[] = "\a\f\n\r\t\v";
    const uint32_t c = compile_next(compiler);
    const int next = compile_peek(compiler, 0);

    *rune = c;
    if (c >= 0x80) {
        return false;
    }
    if (c == '0' || (c >= '1' && c <= '7' && next >= '0' && next <= '7')) {
        *rune = c - '0';
        for (int i = 1, digit; i < 3 && (digit = compile_peek(compiler, 0)) >= '0' && digit <= '7';
             i++) {
            *rune = *rune * 8 + (uint32_t)(digit - '0');
            compiler->at++;
        }
        return true;
    }
    if (c == 'x') {
        return compile_hex(compiler, rune);
    }
    const char *found = c == 0 ? NULL : strchr(from, (int)c);
    if (found != NULL) {
        *rune = (unsigned char)to[found - from];
        return true;
    }
    return c == '_' || !regex_is_word(c);
}

/* The character at the current position, which may be escaped. */
static uint32_t compile_rune(struct compiler *compiler)
{
    const size_t from = compiler->at;
    uint32_t rune = compile_next(compiler);

    if (rune != '\\') {
        return rune;
    }
    if (compile_peek(compiler, 0) < 0) {
        compile_fail(compiler, "trailing backslash at end of expression", compiler->at);
    } else if (!compile_escaped(compiler, &rune)) {
        compile_fail(compiler, "invalid escape sequence", from);
    }
    return rune;
}

/* --- classes --- */

static void compile_class_begin(struct compiler *compiler)
{
    compiler->class.count = 0;
    compiler->class.full = false;
    compiler->class.folded = (compiler->flags & FLAG_FOLD) != 0;
}

static void compile_class_end(struct compiler *compiler, bool negated)
{
    struct regex_program *program = compiler->program;
    struct regex_class *class = &compiler->class;

    regex_class_settle(class, 0, negated);
    if (class->full || class->count > REGEX_RANGES_MAX - program->range_count) {
        compile_fail_size(compiler);
        return;
    }
    memcpy(&program->ranges[program->range_count], class->ranges,
           class->count * sizeof(class->ranges[0]));
    compile_put(compiler, STEP_CLASS, (uint32_t)program->range_count, class->count);
    program->range_count += class->count;
}

/* \d and its like; with a capital letter, what is not in it. False: there is none here. */
static bool compile_class_escape(struct compiler *compiler)
{
    const int letter = compile_peek(compiler, 1);

    if (compile_peek(compiler, 0) != '\\' || letter < 0 || strchr("dswDSW", letter) == NULL ||
        letter == 0) {
        return false;
    }
    const char name = slice_lower((char)letter);

    compiler->at += 2;
    (void)regex_class_add_named(&compiler->class, slice_from(&name, 1), name != letter);
    return true;
}

/* [:alpha:], [:^alpha:]. False: there is none here. */
static bool compile_class_named(struct compiler *compiler)
{
    const size_t from = compiler->at;

    if (!compile_text(compiler, "[:")) {
        return false;
    }
    const char *begin = compiler->pattern.data + compiler->at;
    const char *end = memmem(begin, compiler->pattern.size - compiler->at, ":]", 2);
    if (end == NULL) {
        compiler->at = from;
        return false;
    }
    struct slice name = slice_from(begin, (size_t)(end - begin));
    const bool negated = name.size > 0 && name.data[0] == '^';

    if (negated) {
        name = slice_from(name.data + 1, name.size - 1);
    }
    compiler->at = (size_t)(end + 2 - compiler->pattern.data);
    if (name.size < 2 || !regex_class_add_named(&compiler->class, name, negated)) {
        compile_fail(compiler, "invalid character class range", from);
    }
    return true;
}

/* \p{Greek}. False: there is none here. */
static bool compile_refuse_unicode(struct compiler *compiler)
{
    const size_t from = compiler->at;
    const int letter = compile_peek(compiler, 1);

    if (compile_peek(compiler, 0) != '\\' || (letter != 'p' && letter != 'P')) {
        return false;
    }
    compiler->at += 2;
    compile_fail(compiler, "Unicode classes are not supported", from);
    return true;
}

static void compile_bracket_range(struct compiler *compiler)
{
    const size_t from = compiler->at;
    const uint32_t low = compile_rune(compiler);
    uint32_t high = low;

    if (compiler->fault == NULL && compile_peek(compiler, 0) == '-' &&
        compile_peek(compiler, 1) >= 0 && compile_peek(compiler, 1) != ']') {
        compiler->at++;
        high = compile_rune(compiler);
        if (high < low) {
            compile_fail(compiler, "invalid character class range", from);
        }
    }
    if (compiler->fault == NULL) {
        (void)compile_folds(compiler, high);
        regex_class_add(&compiler->class, low, high);
    }
}

static void compile_bracket(struct compiler *compiler)
{
    const size_t from = compiler->at++;
    const bool negated = compile_text(compiler, "^");

    compile_class_begin(compiler);
    for (bool first = true; compiler->fault == NULL; first = false) {
        if (compile_peek(compiler, 0) < 0) {
            compile_fail(compiler, "missing closing ]", from);
        } else if (!first && compile_text(compiler, "]")) {
            compile_class_end(compiler, negated);
            return;
        } else if (!compile_class_named(compiler) && !compile_refuse_unicode(compiler) &&
                   !compile_class_escape(compiler)) {
            compile_bracket_range(compiler);
        }
    }
}

/* --- repetitions --- */

static int compile_number(struct compiler *compiler)
{
    const int first = compile_peek(compiler, 0);
    int value = 0;

    if (first < '0' || first > '9' ||
        (first == '0' && compile_peek(compiler, 1) >= '0' && compile_peek(compiler, 1) <= '9')) {
        return -1;
    }
    for (int c; (c = compile_peek(compiler, 0)) >= '0' && c <= '9'; compiler->at++) {
        value = value > REGEX_REPEAT_MAX ? value : value * 10 + c - '0';
    }
    return value;
}

/* "{n}", "{n,}" or "{n,m}" at the current position; anything else is literal, as in Go. */
static bool compile_bounds(struct compiler *compiler, unsigned *low, unsigned *high)
{
    const size_t from = compiler->at++;
    const int least = compile_number(compiler);
    int most = least;

    if (least >= 0 && compile_text(compiler, ",")) {
        most = compile_peek(compiler, 0) == '}' ? INT16_MAX : compile_number(compiler);
    }
    if (least < 0 || most < 0 || !compile_text(compiler, "}")) {
        compiler->at = from;
        return false;
    }
    *low = (unsigned)least;
    *high = most == INT16_MAX ? UINT32_MAX : (unsigned)most;
    if (least > REGEX_REPEAT_MAX || most < least ||
        (most > REGEX_REPEAT_MAX && most != INT16_MAX)) {
        compile_fail(compiler, "invalid repeat count", from);
    }
    return true;
}

/* Makes the piece that begins at `from`, up to the end, optional (`more`: any number of times). */
static void compile_optional(struct compiler *compiler, size_t from, bool more)
{
    const size_t end = compiler->program->count + 1;

    if (compile_branch(compiler, from, STEP_SPLIT, end + more) && more) {
        (void)compile_branch(compiler, end, STEP_JUMP, from);
    }
}

static void compile_repeat(struct compiler *compiler, size_t from, unsigned low, unsigned high)
{
    struct regex_program *program = compiler->program;
    const size_t size = program->count - from;
    const bool endless = high == UINT32_MAX;
    const unsigned optional = !endless ? high - low : low == 0 ? 1 : 0;

    if (low + optional == 0) { /* {0} */
        program->count = from;
        return;
    }
    for (unsigned i = 1; i < low + optional; i++) {
        const size_t at = program->count;

        if (!compile_insert(compiler, at, size)) {
            return;
        }
        memcpy(&program->steps[at], &program->steps[from], size * sizeof(program->steps[0]));
    }
    if (endless && low > 0) { /* The last one as often as it may be. */
        const size_t end = program->count;

        (void)compile_branch(compiler, end, STEP_SPLIT, end - size);
    }
    /* From the last one on, each wraps what comes after it: (x(x(x)?)?)? */
    for (unsigned i = 0; i < optional && compiler->fault == NULL; i++) {
        compile_optional(compiler, from + size * (low + optional - 1 - i), endless);
    }
}

/* False: no repetition stands here. */
static bool compile_repetition(struct compiler *compiler, size_t before)
{
    const size_t from = compiler->at;
    const int c = compile_peek(compiler, 0);
    unsigned low = c == '+';
    unsigned high = c == '?' ? 1 : UINT32_MAX;

    if (c == '*' || c == '+' || c == '?') {
        compiler->at++;
    } else if (c != '{' || !compile_bounds(compiler, &low, &high)) {
        return false;
    }
    /* Whether it takes much or little does not matter here. */
    (void)(compiler->fault == NULL && compile_text(compiler, "?"));
    if (before != NOWHERE) {
        compile_fail(compiler, "invalid nested repetition operator", before);
    } else if (compiler->piece == NOWHERE) {
        compile_fail(compiler, "missing argument to repetition operator", from);
    }
    if (compiler->fault == NULL) {
        compile_repeat(compiler, compiler->piece, low, high);
    }
    compiler->repetition = from;
    return true;
}

/* --- groups --- */

static void compile_open(struct compiler *compiler, unsigned flags)
{
    if (compiler->depth == REGEX_DEPTH_MAX) {
        compile_fail_to_end(compiler, "expression nests too deeply", 0);
        return;
    }
    compiler->groups[++compiler->depth] = (struct regex_group){
        .from = compiler->program->count, .jump = NOWHERE, .flags = compiler->flags};
    compiler->flags = flags;
    compiler->piece = NOWHERE;
}

/* Behind "(?P<": the rest of the name. */
static void compile_open_named(struct compiler *compiler, size_t from)
{
    bool named = false;

    for (int c; (c = compile_peek(compiler, 0)) >= 0; named = true) {
        compiler->at++;
        if (c == '>' && named) {
            compile_open(compiler, compiler->flags);
            return;
        }
        if (!regex_is_word((uint32_t)c)) {
            break;
        }
    }
    while (compile_peek(compiler, 0) >= 0 && compiler->pattern.data[compiler->at - 1] != '>') {
        compiler->at++;
    }
    if (compiler->pattern.data[compiler->at - 1] != '>') {
        compile_fail_to_end(compiler, "invalid named capture", from);
    }
    compile_fail(compiler, "invalid named capture", from);
}

/* Behind "(?": flags up to ")" are for the rest of the group around, up to ":" for a new one. */
static void compile_open_flags(struct compiler *compiler, size_t from)
{
    static const char letters[] = "imsU";
    unsigned flags = compiler->flags;
    bool clear = false;
    bool empty = false; /* a "-" has nothing behind it */

    while (compile_peek(compiler, 0) >= 0) {
        const uint32_t c = compile_next(compiler);
        const char *found = c == 0 || c >= 0x80 ? NULL : strchr(letters, (int)c);

        if (found != NULL) {
            const unsigned flag = 1U << (found - letters);

            flags = clear ? flags & ~flag : flags | flag;
            empty = false;
        } else if (c == '-' && !clear) {
            clear = true;
            empty = true;
        } else if (c == ':' && !empty) {
            compile_open(compiler, flags);
            return;
        } else if (c == ')' && !empty) {
            compiler->flags = flags;
            return;
        } else {
            break;
        }
    }
    compile_fail(compiler, "invalid or unsupported Perl syntax", from);
}

/* The alternative before the last one ends behind the last one. */
static void compile_end_alternative(struct compiler *compiler, const struct regex_group *group)
{
    if (group->jump != NOWHERE) {
        compiler->program->steps[group->jump].to =
            (int16_t)(compiler->program->count - group->jump);
    }
}

static void compile_alternative(struct compiler *compiler)
{
    struct regex_group *group = &compiler->groups[compiler->depth];

    /* What came so far, or what comes: a split before, and a jump over the rest behind. */
    compile_end_alternative(compiler, group);
    const size_t jump = compiler->program->count + 1;

    if (compile_branch(compiler, group->from, STEP_SPLIT, jump + 1) &&
        compile_branch(compiler, jump, STEP_JUMP, jump)) {
        group->jump = jump;
    }
    compiler->piece = NOWHERE;
}

static void compile_close(struct compiler *compiler)
{
    const struct regex_group *group = &compiler->groups[compiler->depth];

    if (compiler->depth == 0) {
        compile_fail_to_end(compiler, "unexpected )", 0);
        return;
    }
    compile_end_alternative(compiler, group);
    compiler->depth--;
    compiler->piece = group->from;
    compiler->flags = group->flags;
}

/* --- the whole --- */

/* Behind "\Q": all is literal up to "\E". */
static void compile_quoted(struct compiler *compiler)
{
    while (compiler->at < compiler->pattern.size && !compile_text(compiler, "\\E")) {
        compile_literal(compiler, compile_next(compiler));
    }
}

/* What a backslash begins outside of brackets. */
static void compile_escape(struct compiler *compiler)
{
    static const struct {
        const char *text;
        enum regex_condition condition;
    } conditions[] = {{"\\A", AT_TEXT_BEGIN},
                      {"\\z", AT_TEXT_END},
                      {"\\b", AT_WORD_EDGE},
                      {"\\B", AT_NO_WORD_EDGE}};

    for (size_t i = 0; i < sizeof(conditions) / sizeof(conditions[0]); i++) {
        if (compile_text(compiler, conditions[i].text)) {
            compile_put(compiler, STEP_IF, conditions[i].condition, 0);
            return;
        }
    }
    compile_class_begin(compiler);
    if (compile_text(compiler, "\\Q")) {
        compile_quoted(compiler);
    } else if (compile_class_escape(compiler)) {
        compile_class_end(compiler, false);
    } else if (!compile_refuse_unicode(compiler)) {
        const uint32_t rune = compile_rune(compiler);

        if (compiler->fault == NULL) {
            compile_literal(compiler, rune);
        }
    }
}

/* What begins with this byte, and is no repetition. */
static void compile_piece(struct compiler *compiler, int c)
{
    const size_t from = compiler->at;
    const bool lines = (compiler->flags & FLAG_LINES) != 0;

    if (c == '[') {
        compile_bracket(compiler);
        return;
    }
    if (c == '\\') {
        compile_escape(compiler);
        return;
    }
    const uint32_t rune = compile_next(compiler);

    switch (c) {
    case '(':
        if (compile_peek(compiler, 0) != '?') {
            compile_open(compiler, compiler->flags);
        } else if (compile_peek(compiler, 3) >= 0 && compile_text(compiler, "?P<")) {
            compile_open_named(compiler, from);
        } else {
            compiler->at++;
            compile_open_flags(compiler, from);
        }
        break;
    case ')':
        compile_close(compiler);
        break;
    case '|':
        compile_alternative(compiler);
        break;
    case '.':
        compile_put(compiler, (compiler->flags & FLAG_DOT_ALL) != 0 ? STEP_ANY : STEP_LINE, 0, 0);
        break;
    case '^':
        compile_put(compiler, STEP_IF, lines ? AT_LINE_BEGIN : AT_TEXT_BEGIN, 0);
        break;
    case '$':
        compile_put(compiler, STEP_IF, lines ? AT_LINE_END : AT_TEXT_END, 0);
        break;
    default:
        compile_literal(compiler, rune);
    }
}

static void compile_all(struct compiler *compiler)
{
    for (size_t at = 0, size; at < compiler->pattern.size; at += size) {
        size = rune_size(compiler->pattern, at);
        if (size == 0) {
            compile_fail_to_end(compiler, "invalid UTF-8", at);
            return;
        }
    }
    while (compiler->fault == NULL && compiler->at < compiler->pattern.size) {
        const size_t before = compiler->repetition;

        compiler->repetition = NOWHERE;
        if (!compile_repetition(compiler, before)) {
            compile_piece(compiler, compile_peek(compiler, 0));
        }
    }
    if (compiler->fault == NULL && compiler->depth > 0) {
        compile_fail(compiler, "missing closing )", 0);
    }
    if (compiler->fault == NULL) {
        compile_end_alternative(compiler, &compiler->groups[0]);
    }
}

int regex_compile(struct regex_program *program, struct slice pattern, struct errmsg *err)
{
    struct compiler *compiler = calloc(1, sizeof(*compiler));

    if (compiler == NULL) {
        return errmsg_set(err, -1, "out of memory");
    }
    program->count = 0;
    program->range_count = 0;
    compiler->program = program;
    compiler->pattern = pattern;
    compiler->groups[0].jump = NOWHERE;
    compiler->piece = NOWHERE;
    compiler->repetition = NOWHERE;
    compile_all(compiler);
    const char *fault = compiler->fault;
    const struct slice part = compiler->part;

    free(compiler);
    if (fault == NULL) {
        return 0;
    }
    return errmsg_set(err, -1, "error parsing regexp: %s: `%.*s`", fault,
                      part.size > 200 ? 200 : (int)part.size, part.size == 0 ? "" : part.data);
}
