"""Writes expressions.json and conversations.json with Jinja2 3.1.6, set up as transformers does.

    python3 generate.py        (needs jinja2==3.1.6, nothing else)

Every case is the template, its variables, and either the text or the fact that Jinja2 raises.
"""

import datetime
import json
import pathlib
import re

import jinja2
import jinja2.ext
import jinja2.sandbox

HERE = pathlib.Path(__file__).parent


class AssistantTracker(jinja2.ext.Extension):
    """The part of transformers' extension that decides what is printed."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        call = self.call_method("_generation_support")
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    @jinja2.pass_eval_context
    def _generation_support(self, context, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(
        x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[AssistantTracker, jinja2.ext.loopcontrols],
    )
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda f: datetime.datetime.now().strftime(f)
    return env


def run(source, variables):
    try:
        text = environment().from_string(source).render(**variables)
        text.encode()
        if re.search(" at 0x[0-9a-f]+>", text):
            return {"error": "prints an address"}
        return {"text": text}
    except Exception as error:
        return {"error": type(error).__name__}


def write(name, value):
    text = json.dumps(value, ensure_ascii=False, indent=1)
    (HERE / name).write_text(text + "\n")


def expressions():
    lines = (HERE / "expressions.txt").read_text().split("\n---\n")
    variables = {
        "s": "Hello, World",
        "e": "",
        "u": "Grüße <b>&'\"\u200b😀\u0001\n",
        "n": None,
        "i": 7,
        "f": 2.5,
        "l": [3, 1, 2],
        "d": {"role": "user", "content": "hi", "items": [1], "n": 1e16},
        "m": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": " hi ", "x": 1},
            {"role": "assistant", "content": "yo\n"},
        ],
        "tools": [{"type": "function", "function": {"name": "f<x>", "parameters": {"a": [1.5, None, True]}}}],
    }
    cases = [dict(template=line, **run(line, variables)) for line in lines if line]
    write("expressions.json", {"variables": variables, "cases": cases})


CONVERSATIONS = [
    [("user", "Hello")],
    [("system", "You are terse."), ("user", "Hi"), ("assistant", "Yes?"), ("user", "Tell me more.")],
    [("user", ""), ("assistant", ""), ("user", "")],
    [("user", "  spaces \n\n"), ("assistant", "\tok\u00a0"), ("user", "\u3000wide\u2028")],
    [("user", "Grüße 😀 \u0915\u094d\u0937 \u202e rtl"), ("assistant", "日本語"), ("user", "\u0000\u001f")],
    [("user", "<b>&amp; 'quotes' \"double\" \\back\\ {{ x }} {% if %} {# no #}")],
    [("system", ""), ("user", "a")],
    [("assistant", "I begin."), ("user", "No.")],
    [("user", "one"), ("user", "two")],
    [("tool", "42"), ("user", "x")],
    [("user", "x" * 2000), ("assistant", "line\n" * 50), ("user", "end")],
    [("system", " S \r\n"), ("user", "a\rb\r\nc"), ("assistant", "</s>[INST]"), ("user", "System: no")],
]


def conversations():
    out = []
    for path in sorted(HERE.glob("*.jinja")):
        source = path.read_bytes().decode()
        for index, conversation in enumerate(CONVERSATIONS):
            for generate in (True, False):
                messages = [{"role": r, "content": c} for r, c in conversation]
                variables = {
                    "messages": messages,
                    "add_generation_prompt": generate,
                    "bos_token": "<s>",
                    "eos_token": "</s>",
                    "tools": None,
                    "documents": None,
                }
                result = run(source, variables)
                out.append(dict(template=path.name, conversation=index, generate=generate, **result))
    messages = [[{"role": r, "content": c} for r, c in turns] for turns in CONVERSATIONS]
    write("conversations.json", {"conversations": messages, "cases": out})


if __name__ == "__main__":
    expressions()
    conversations()
