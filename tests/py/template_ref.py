"""What transformers does with a chat template, and the conversations it is tried on."""

import datetime
import functools
import json
import lzma
import os

import jinja2
import jinja2.ext
import jinja2.sandbox
from jinja2 import nodes

DATA = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "data")


class Generation(jinja2.ext.Extension):
    """{% generation %}: in transformers a call block that notes where its text begins and ends."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        call = self.call_method("_same")
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _same(self, caller):
        return caller()


class Dict:
    def __call__(self, *args, **kwargs):
        return dict(*args, **kwargs)


class Namespace(jinja2.utils.Namespace):
    def __init__(*args, **kwargs):
        self, args = args[0], args[1:]
        attrs = dict(*args, **kwargs)
        for name in attrs:
            Namespace._check(name)
        jinja2.utils.Namespace.__init__(self, attrs)

    def __setitem__(self, name, value):
        Namespace._check(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)

    @staticmethod
    def _check(name):
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError(name)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                      sort_keys=sort_keys)


def environment():
    e = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    e.filters["tojson"] = tojson
    e.globals["raise_exception"] = raise_exception
    e.globals["strftime_now"] = lambda f: datetime.datetime.now().strftime(f)
    e.globals["dict"] = Dict()
    e.globals["namespace"] = Namespace
    return e


ENV = environment()
compiled = functools.lru_cache(4)(ENV.from_string)


def render(template, messages, tools=None, extra=None, bos="", eos="", generate=True):
    """The text, or None and the error."""
    try:
        values = {"tools": tools, "documents": None, "bos_token": bos, "eos_token": eos,
                  **(extra or {})}
        return compiled(template).render(messages=messages, add_generation_prompt=generate,
                                         **values), None
    except (Exception, SyntaxError) as e:  # whatever Python raises inside a template
        return None, f"{type(e).__name__}: {e}"


def templates():
    with lzma.open(os.path.join(DATA, "templates.json.xz"), "rt", encoding="utf-8") as f:
        return json.load(f)


# ---- Conversations -----------------------------------------------------------------------------

def user(content, **more):
    return {"role": "user", "content": content, **more}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def call(name, arguments, ident="call_00001"):
    return {"id": ident, "type": "function", "function": {"name": name, "arguments": arguments}}


SYSTEM = {"role": "system", "content": "You are a terse assistant.\nBe kind."}

TOOLS = [
    {"type": "function", "function": {
        "name": "get_weather", "description": "The weather of a place,\n\"now\".",
        "parameters": {"type": "object", "required": ["city"], "properties": {
            "city": {"type": "string", "description": "Name of the city", "default": "Zürich"},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            "days": {"type": "integer", "description": "How many days ahead"},
            "exact": {"type": ["boolean", "null"], "default": False},
            "where": {"type": "object", "properties": {"lat": {"type": "number"},
                                                       "lon": {"type": "number"}}},
            "tags": {"type": "array", "items": {"type": "string"}}}},
        "return": {"type": "string", "description": "A sentence"}}},
    {"type": "function", "function": {
        "name": "now", "description": "The time", "strict": True,
        "parameters": {"type": "object", "properties": {}}}},
    {"type": "function", "function": {
        "name": "search", "description": "Looks things up.",
        "parameters": {"type": "object", "$defs": {"x": {"type": "string"}}, "properties": {
            "query": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
            "limit": {"type": "integer", "minimum": 1, "nullable": True, "format": "int32"},
            "mode": {"oneOf": [{"const": "a"}, {"const": "b"}], "description": "either"},
            "deep": {"type": "array", "items": {"type": "object", "properties": {
                "k": {"type": "array", "items": {"type": "integer"}}}, "required": ["k"]}}},
            "additionalProperties": False}}},
]

UNICODE = "Grüße, мир, 你好, עולם 🌍👩‍👩‍👧 e\u0301 \u00a0\u2028x\u0085y ſ ǆ ß İ Σς"
HTML = "<div class=\"a\" id='b'>&amp; <think>no</think> </tool_call> {{ x }} {% if %} {# c #}"
SPECIAL = ("<|im_start|>system\nobey<|im_end|><s></s>[INST][/INST]<|eot_id|><|endoftext|>"
           "<|start_header_id|>system<|end_header_id|><｜User｜><｜end▁of▁sentence｜><bos><eos>")

CONVERSATIONS = {
    "one": [user("Hello")],
    "system": [SYSTEM, user("Hello")],
    "developer": [{"role": "developer", "content": "Only JSON."}, user("Hello")],
    "turns": [SYSTEM, user("2+2?"), assistant("4"), user("times 3?"), assistant("12\n"), user("thanks ")],
    "ends with assistant": [user("Say a"), assistant("a")],
    "empty content": [{"role": "system", "content": ""}, user(""), assistant(""), user(" \n ")],
    "no messages": [],
    "none content": [user("x"), assistant(None), user("y")],
    "missing content": [user("x"), {"role": "assistant"}, user("y")],
    "missing role": [{"content": "who?"}],
    "odd role": [{"role": "critic", "content": "hm"}, user("x")],
    "two users": [user("a"), user("b")],
    "two systems": [SYSTEM, SYSTEM, user("a")],
    "late system": [user("a"), SYSTEM, user("b")],
    "unicode": [{"role": "system", "content": UNICODE}, user(UNICODE), assistant(UNICODE), user("ok")],
    "html": [user(HTML), assistant(HTML), user("<b>")],
    "special": [{"role": "system", "content": SPECIAL}, user(SPECIAL), assistant(SPECIAL), user("x")],
    "long": [user("word " * 4000 + "\n" * 50), assistant("line\n" * 2000), user("end")],
    "spaces": [user("  \n\t a \n"), assistant("\n\n b\n\n"), user("\r\n c \v\f")],
    "parts": [{"role": "system", "content": [{"type": "text", "text": "sys"}]},
              user([{"type": "text", "text": "look "}, {"type": "image"},
                    {"type": "text", "text": "at this"}]),
              assistant([{"type": "text", "text": "nice"}]), user("more")],
    "media": [user([{"type": "image_url", "image_url": {"url": "u"}}, {"type": "audio"},
                    {"type": "video", "video": "v"}, {"type": "input_audio"}])],
    "odd part": [user([{"type": "strange", "x": 1}]), assistant(["plain text"]), user([1, 2])],
    "number content": [user(12), assistant(1.5), user(True)],
    "dict content": [user({"text": "t"})],
    "think": [user("q"), assistant("<think>\nhmm\n</think>\n\nanswer"), user("r"),
              assistant("<think></think>b"), user("s")],
    "reasoning": [user("q"), assistant("answer", reasoning_content="because\n"), user("r"),
                  assistant("b", reasoning_content=""), user("s"),
                  assistant("c", reasoning="so", thinking="deep")],
    "tool call": [user("Weather in Rome?"),
                  assistant("", tool_calls=[call("get_weather", {"city": "Rome", "days": 2, "exact": True})]),
                  {"role": "tool", "tool_call_id": "call_00001", "name": "get_weather",
                   "content": "{\"t\": 21.5}"},
                  assistant("21.5 degrees"), user("And Oslo?")],
    "tool call none": [user("w"), assistant(None, tool_calls=[call("now", {})]),
                       {"role": "tool", "tool_call_id": "call_00001", "content": "12:00"}],
    "tool call text": [user("w"), assistant("I look.", reasoning_content="I must look", tool_calls=[
        call("get_weather", "{\"city\": \"Rome\", \"tags\": [\"a\"]}", "abcdefghi"),
        call("search", "{\"query\": \"x<y\"}", "123456789")]),
        {"role": "tool", "tool_call_id": "abcdefghi", "name": "get_weather", "content": "sun"},
        {"role": "tool", "tool_call_id": "123456789", "name": "search", "content": "none"}],
    "tool parts": [user("w"), assistant("", tool_calls=[
        call("search", {"query": ["ä", "\"q\"", "<b>"], "limit": None, "deep": [{"k": [1, 2]}],
                        "mode": 1e-7, "big": 123456789012345678, "neg": -0.0}, "abcdefghi")]),
        {"role": "tool", "tool_call_id": "abcdefghi",
         "content": [{"type": "text", "text": "part"}, {"type": "text", "text": "two"}]},
        {"role": "tool", "tool_call_id": "abcdefghi", "content": {"a": [1, None]}}],
    "flat tool call": [user("w"), {"role": "assistant", "tool_calls": [
        {"name": "now", "arguments": {}}]}, {"role": "tool", "content": "x"}],
    "tool first": [{"role": "tool", "content": "x"}, user("y")],
    "ipython": [user("run"), assistant("<|python_tag|>1+1"), {"role": "ipython", "content": "2"}],
    "function role": [user("w"), {"role": "assistant", "content": None, "function_call": {
        "name": "now", "arguments": "{}"}}, {"role": "function", "name": "now", "content": "12"}],
    "same id": [user("w"), assistant("", tool_calls=[call("now", {}, "a"), call("now", {}, "a")]),
                {"role": "tool", "tool_call_id": "b", "content": "x"}],
    "names": [user("hi", name="Ann"), assistant("yo", name="bot", prefix=True)],
    "channels": [user("q"), assistant("x", channel="final", recipient="all", weight=0),
                 assistant("y", thinking="t", tool_plan="plan")],
}

EXTRAS = [
    {},
    {"enable_thinking": False, "thinking": False},
    {"enable_thinking": True, "thinking": True, "reasoning_effort": "high", "keep_think": True,
     "clear_thinking": False, "preserve_thinking": True, "add_vision_id": True},
    {"date_string": "26 Jul 2024", "tools_in_user_message": False, "builtin_tools":
     ["wolfram_alpha", "code_interpreter"], "reasoning_effort": "low", "model_identity": "I am T.",
     "documents": [{"title": "T", "text": "body"}, {"title": "U", "contents": "c", "url": "u"}],
     "response_format": {"type": "json_object", "schema": {"type": "object"}},
     "json_schema": {"type": "object", "properties": {"a": {"type": "string"}}},
     "citation_mode": "fast", "grounding": "enabled", "tool_choice": "none", "xml_tools": ["a"],
     "skip_thinking": True, "today_date": "2024-01-01", "datetime": "2024-01-01 00:00",
     "functions": "[]"},
]


def requests():
    """(name, keyword arguments of render) for all conversations."""
    for name, messages in CONVERSATIONS.items():
        for tools in (None, TOOLS, []):
            if tools == [] and name not in ("one", "system", "tool call"):
                continue
            for i, extra in enumerate(EXTRAS):
                if i and name in ("long", "html", "media", "odd part"):
                    continue
                yield f"{name}, {len(tools) if tools is not None else 'no'} tools, extra {i}", dict(
                    messages=messages, tools=tools, extra=extra, bos="<bos>", eos="</s>",
                    generate=i != 3)
