/* Chat templates: where the marks go, limits, bad input, and running out of memory. That
 * the text is jinja2's is tests/py/test_template.py's business. */
#include "base/alloc.h"
#include "base/err.h"
#include "llm/template.h"
#include "tap.h"

static const char messages[] =
    "[{\"role\":\"system\",\"content\":\"Be \\\"kind\\\".\\n\"},{\"role\":\"user\",\"content\":"
    "[{\"type\":\"text\",\"text\":\"<|end|> \\u00e4\"},{\"type\":\"image\"}],\"n\":12,\"f\":1.5},"
    "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"name\":\"f\",\"arguments\":"
    "{\"k\":[1,true,null]}}]}]";
static const char extra[] =
    "{\"s\":\"aBc dEf\",\"l\":[\"x\",\"y\",\"x\"],\"d\":{\"kk\":\"vv\"},\"sp\":\"  q  "
    "\",\"u\":\"\\u00df\","
    "\"lines\":\"p\\nq\",\"h\":\"<&>\"}";

static int render(const char *text, const tni_render_opt *opt, tni_str *out, tni_str *marks) {
    const tni_render_opt o = {.bos_token = "<s>", .extra_json = extra, .now = 86400 * 365};
    tni_template *t;
    int status = tni_template_parse(text, strlen(text), "unit", &t);
    if (status) return status;
    status = tni_template_render(t, messages, sizeof messages - 1, opt ? opt : &o, out, marks);
    tni_template_free(t);
    return status;
}

/* The text with marked runs in parentheses. */
static void marked(const char *text, const char *want) {
    tni_str out = {0}, marks = {0}, shown = {0};
    int status = render(text, NULL, &out, &marks);
    for (size_t i = 0; !status && i < out.n; i++) {
        const bool now = marks.v[i], before = i && marks.v[i - 1];
        if (now != before) tni_str_putc(&shown, now ? '(' : ')');
        tni_str_putc(&shown, out.v[i]);
    }
    if (!status && out.n && marks.v[out.n - 1]) tni_str_putc(&shown, ')');
    is_str(status ? tni_error() : shown.v ? shown.v : "", want, "%s", text);
    is_i64(out.n, marks.n, "as many marks as bytes");
    tni_str_free(&out), tni_str_free(&marks), tni_str_free(&shown);
}

static void test_marks(void) {
    marked("a{{ s }}b", "a(aBc dEf)b");
    marked("{{ s ~ 'x' ~ s }}", "(aBc dEf)x(aBc dEf)");
    marked("{{ 'x' + s + 'y' }}", "x(aBc dEf)y");
    marked("{{ s[1:3] }}{{ ('x' + s)[0:2] }}{{ ('x' ~ s)[::-1] }}", "(Bc)x(afEd cBa)x");
    marked("{{ s[0] }}{{ s|first }}{{ ('x' ~ s)|last }}", "(aaf)");
    marked("{{ sp.strip() }}.{{ ('[' ~ sp ~ ']')|trim('[') }}", "(q).(  q  )]");
    marked("{{ s|upper }}-{{ ('x' ~ u)|upper }}-{{ s.title() }}-{{ ('q' ~ s)|capitalize }}",
           "(ABC DEF)-X(SS)-(Abc Def)-Q(abc def)");
    marked("{{ s.replace('B', '|') }}{{ 'a-b'.replace('-', s) }}{{ s|replace('a', 'Z', 1) }}",
           "(a)|(c dEf)a(aBc dEf)bZ(Bc dEf)");
    marked("{{ s.split(' ') | join('+') }}", "(aBc)+(dEf)");
    marked("{{ l|join(s) }}{{ '-'.join(l) }}", "(xaBc dEfyaBc dEfxx)-(y)-(x)");
    marked("{{ s|tojson }}{{ d|tojson }}{{ messages[0].content|tojson }}",
           "\"(aBc dEf)\"{\"(kk)\": \"(vv)\"}\"(Be \\\"kind\\\".\\n)\"");
    marked("{{ l }}{{ d }}{{ messages[1].n }}{{ messages[1].f }}",
           "['(x)', '(y)', '(x)']{'(kk)': '(vv)'}121.5");
    marked("{{ '%s/%5s/%r' % (s, l[0], l[1]) }}", "(aBc dEf)/    (x)/'(y)'");
    marked("{{ '{}|{:>3}|{a}'.format(s, l[0], a=d.kk) }}", "(aBc dEf)|  (x)|(vv)");
    marked("{{ lines|indent(2, true) }}", "  (p)\n  (q)");
    marked("{{ h|escape }}{{ h|safe }}{{ '<' ~ h|e }}", "(&lt;&amp;&gt;<&>)<(&lt;&amp;&gt;)");
    marked("{{ l|unique|join }}{{ l|sort|join('') }}{{ l|reverse|join }}", "(xyxxyxyx)");
    marked("{{ ','.join(d.keys()) }}{{ d.items()|list }}", "(kk)[('(kk)', '(vv)')]");
    marked("{% set x %}<{{ s }}>{% endset %}{{ x }}{{ x|length }}", "<(aBc dEf)>9");
    marked("{% macro m(a) %}[{{ a }}]{% endmacro %}{{ m(s) }}{{ m('t') }}", "[(aBc dEf)][t]");
    marked("{% filter upper %}a{{ s }}{% endfilter %}", "A(ABC DEF)");
    marked("{% set n = namespace(t='') %}{% for c in 'ab' %}{% set n.t = n.t + c + l[0] %}"
           "{% endfor %}{{ n.t }}",
           "a(x)b(x)");
    marked("{{ 'abc' * 2 }}{{ d.kk * 2 }}", "abcabc(vvvv)");
    marked("{{ s.partition(' ')|join('_') }}{{ l[0].center(5, '.') }}", "(aBc)_( )_(dEf)..(x)..");
    marked("{{ bos_token }}{{ '<s>' }}{{ messages[1].content[0].text }}",
           "<s><s>(<|end|> \303\244)");
    marked("{{ strftime_now('%Y') }}{{ strftime_now(s) }}", "1971(aBc dEf)");
    marked("{{ s if t is defined else l[0] }}{{ q|default(s) }}{{ s and 'z' }}", "(xaBc dEf)z");
    marked("{{ [s, 'k']|map('upper')|join }}{{ dict(a=s).a }}", "(ABC DEF)K(aBc dEf)");
}

static void fails(const char *text, const tni_render_opt *o, int code, const char *words) {
    tni_str out = {0}, marks = {0};
    tni_str_puts(&out, "kept"), tni_str_puts(&marks, "0000");
    is_i64(render(text, o, &out, &marks), code, "refused: %s", words);
    ok(strstr(tni_error(), words) != NULL, "%s", tni_error());
    ok(out.n == 4 && !strcmp(out.v, "kept") && marks.n == 4, "nothing was written");
    tni_str_free(&out), tni_str_free(&marks);
}

static void test_limits(void) {
    const tni_render_opt small = {.max_output = 100}, quick = {.max_steps = 1000};
    fails("{{ 'a' * 101 }}", &small, TN_EVALUE, "100 bytes");
    fails("{% for i in range(101) %}a{% endfor %}", &small, TN_EVALUE, "100 bytes");
    fails("{% set x %}{{ 'a' * 60 }}{% endset %}{{ x }}{{ x }}", &small, TN_EVALUE, "100 bytes");
    fails("{% for i in range(999) %}{{ i }}{% endfor %}", &quick, TN_EVALUE, "1000 steps");
    fails("{{ 'ab'|replace('', 'x' * 90)|length }}", &small, TN_EVALUE, "100 bytes");
    fails("{{ 'x'.center(1000) }}", &small, TN_EVALUE, "100 bytes");
    fails("{{ '%1001d' % 1 }}", NULL, TN_EVALUE, "1000");
    fails("{{ '{:2000}'.format(1) }}", NULL, TN_EVALUE, "1000");
    fails("{{ range(100001) }}", NULL, TN_EVALUE, "100000");
    fails("{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}", NULL, TN_EVALUE, "levels");
    fails("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", NULL, TN_EVALUE, "levels");
    fails("{% set n = namespace() %}{% set n.a = n %}{{ n }}", NULL, TN_EVALUE, "nested");
    fails("{% set n = namespace(l=[1]) %}{% for i in range(900) %}{% set n.l = n.l|map('abs') %}"
          "{% endfor %}{{ n.l|list }}",
          NULL, TN_EVALUE, "levels");
    fails("{% set n = namespace(l=[]) %}{% for i in range(300) %}{% set n.l = [n.l] %}{% endfor %}"
          "{{ n.l == n.l|list }}{{ n.l|tojson }}",
          NULL, TN_EVALUE, "nested");
}

static void test_nesting(void) {
    static const struct {
        const char *start, *open, *middle, *close, *end;
    } cases[] = {
        {"{{ ", "(", "1", ")", " }}"},
        {"{{ ", "[", "1", "]", " }}"},
        {"{{ ", "{1: ", "1", "}", " }}"},
        {"{{ ", "not ", "1", "", " }}"},
        {"{{ ", "- ", "1", "", " }}"},
        {"{{ 1", " + 1", "", "", " }}"},
        {"{{ x", ".x", "", "", " }}"},
        {"{{ x", "[0]", "", "", " }}"},
        {"{{ x", "|trim", "", "", " }}"},
        {"{{ x", "()", "", "", " }}"},
        {"{{ ", "f(", "1", ")", " }}"},
        {"{{ ", "1 if ", "1", " else 1", " }}"},
        {"{{ 1", " if 1 else 1", "", "", " }}"},
        {"{{ 1", " and 1", "", "", " }}"},
        {"", "{% macro m() %}", "", "{% endmacro %}", ""},
        {"", "{% filter trim %}", "", "{% endfilter %}", ""},
        {"", "{% if 1 %}", "", "{% endif %}", ""},
        {"{% for ", "(", "a,", ")", " in [] %}{% endfor %}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tni_str s = {0};
        tni_template *t;
        tni_str_puts(&s, cases[i].start);
        for (int k = 0; k < 20000; k++) tni_str_puts(&s, cases[i].open);
        tni_str_puts(&s, cases[i].middle);
        for (int k = 0; k < 20000; k++) tni_str_puts(&s, cases[i].close);
        tni_str_puts(&s, cases[i].end);
        is_i64(tni_template_parse(s.v, s.n, "deep", &t), TN_EFORMAT, "20000 times '%s'",
               cases[i].open);
        ok(strstr(tni_error(), "nesting") != NULL, "%s", tni_error());
        tni_str_free(&s);
    }
}

static void test_bad_input(void) {
    const tni_render_opt tools = {.tools_json = "{}"}, more = {.extra_json = "[]"},
                         broken = {.tools_json = "[1,"};
    tni_template *t;
    fails("x", &tools, TN_EFORMAT, "tools");
    fails("x", &more, TN_EFORMAT, "extra");
    fails("x", &broken, TN_EFORMAT, "tools");
    fails("{{ raise_exception('Only ' ~ 2) }}", NULL, TN_EVALUE, "unit, line 1: Only 2");
    fails("\n\n{{ q.x }}", NULL, TN_EVALUE, "unit, line 3: 'q' is undefined");
    fails("{% include 'x' %}", NULL, TN_EFORMAT, "'include' is not supported");
    fails("\n{{ s|nope }}", NULL, TN_EFORMAT, "unit, line 2: there is no filter 'nope'");
    is_i64(tni_template_parse("a\xff", 2, "bytes", &t), TN_EFORMAT, "not UTF-8: %s", tni_error());
    is_i64(tni_template_parse("{{ '\0' }}", 9, "nul", &t), 0, "a zero byte in a string");
    tni_str out = {0};
    is_i64(tni_template_render(t, "[]", 2, NULL, &out, NULL), 0, "no options, no marks");
    ok(out.n == 1 && !out.v[0], "the zero byte comes out");
    is_i64(tni_template_render(t, "{}", 2, NULL, &out, NULL), TN_EFORMAT, "no list: %s",
           tni_error());
    is_i64(tni_template_render(t, "[3]", 3, NULL, &out, NULL), TN_EFORMAT, "%s", tni_error());
    is_i64(tni_template_render(t, "[", 1, NULL, &out, NULL), TN_EFORMAT, "%s", tni_error());
    is_i64(tni_template_render(t, "[1e999]", 7, NULL, &out, NULL), TN_EFORMAT, "%s", tni_error());
    tni_str_free(&out);
    tni_template_free(t);
    tni_template_free(NULL);
}

/* Every allocation fails once: a clean error, nothing lost, nothing written. */
static void test_memory(void) {
    static const char text[] =
        "{% macro m(a, b='x') %}{{ a }}{{ b }}{{ kwargs }}{% endmacro %}"
        "{% set n = namespace(t='') %}{% for x in messages if x.role %}{% set n.t = n.t ~ x.role %}"
        "{{ loop.last }}{{ x|tojson(indent=1) }}{{ x.items()|list }}{% else %}-{% endfor %}"
        "{% set y | trim %} {{ s.split(' ')|map('upper')|join('-') }} {% endset %}{{ y }}{{ n }}"
        "{{ m(s, q=1) }}{{ '%s %05d' % (l, 3) }}{{ '{:>4}'.format(s[::-1]) }}{{ l|sort|unique|list "
        "}}"
        "{% filter replace('a', 'bb') %}aaa{{ s }}{% endfilter %}{{ d|dictsort }}{{ [1.5, u|upper] "
        "}}";
    int64_t n = 1, live = tni_alloc_live();
    for (;; n++) {
        tni_str out = {0}, marks = {0};
        tni_fail_alloc_at(n);
        int status = render(text, NULL, &out, &marks);
        tni_fail_alloc_at(0);
        const bool clean = !status ? out.n > 100 && out.n == marks.n
                                   : status == TN_EMEMORY && !out.n && !marks.n && *tni_error();
        const int done = !status;
        tni_str_free(&out), tni_str_free(&marks);
        if (!clean || tni_alloc_live() != live) {
            ok(false, "allocation %lld: %d, %s", (long long)n, status, tni_error());
            return;
        }
        if (done) break;
    }
    ok(n > 20, "all of %lld allocations failed cleanly", (long long)n - 1);
}

int main(void) {
    test_marks();
    test_limits();
    test_nesting();
    test_bad_input();
    test_memory();
    is_i64(tni_alloc_live(), 0, "everything was freed");
    return tap_done();
}
