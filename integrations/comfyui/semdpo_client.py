# ---- a copy of semdpo's client, made by integrations/copy_client.py; do not edit it here ----
"""Takes the rewrite out of what a chat model answers, and refuses answers that are no rewrite.

It needs the standard library of Python 3.10 only; `semdpo.client` says why.
"""

import json
import re
from collections.abc import Sequence

MOST_ADDED = 4000  # characters by which a rewrite may be longer than its prompt

_THOUGHT = r"(?:think|thinking|thought|reasoning)"
_LABEL_WORD = (
    "sure|certainly|of|course|ok|okay|here|here['’]s|is|the|a|my|your|final|new|re-?written|rephrased|improved|enhanced|"
    "optimi[sz]ed|revised|refined|expanded|detailed|image|text-to-image"
)
# "Rewritten prompt:", "**Prompt:**", "Sure! Here is the improved prompt:"
_LABEL = re.compile(
    rf"(\*\*)?(?:(?:{_LABEL_WORD})[\s,!.]+)*(?:prompt|rewrite|version|output|answer|result|response)"
    r"(?:\*\*)?\s*:(?(1)(?:\*\*)?)\s*",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"(?:i['’]?m|i am)\s+(?:(?:very|really|so)\s+)?(?:sorry|unable|not able|afraid)|sorry\b|(?:my\s+)?apolog|"
    r"as an ai\b|i\s+(?:can['’]?t|can\s?not|won['’]?t|will not|must decline|do not feel|don['’]t feel|apologi)|"
    r"unfortunately,?\s+i\b",
    re.IGNORECASE,
)
# What begins and ends a quotation, other than " and ', which also stand for inches and apostrophes.
QUOTES = (
    *("“”", "„“", "„”", "””", "‘’", "‚‘", "‚’", "«»", "»«", "‹›", "›‹"),
    *("「」", "『』", "《》", "〈〉", "〝〟", "〝〞", "＂＂"),
)
_AROUND = (('"', '"'), ("'", "'"), ("`", "`"), ("**", "**"), *map(tuple, QUOTES))  # around a whole answer
# Syntax of image tools, and quoted text; `_groups` finds brackets.
_SYNTAX = re.compile(
    r"""<[^<>\n]+>|__[^\s_](?:\S*[^\s_])?__|\bBREAK\b|(?<!\S)AND(?!\S)|embedding:[^\s,()\[\]{}]+|"""
    r""""[^"\n]+"|(?<!\w)'[^'\n]+'(?!\w)|""" + "|".join(f"{pair[0]}[^{pair[1]}\n]+{pair[1]}" for pair in QUOTES)
)
_BRACKETS = {")": "(", "]": "[", "}": "{"}


class NoRewriteError(Exception):
    """There is no rewrite; the message is one sentence that says why, and what to do."""


def rewrite_in(answer: str, prompt: str, keep: Sequence[str] = ()) -> str:
    """The rewrite in a chat model's answer, without thoughts, a label, a code fence and quotation marks around it.

    Args:
        answer: What the model wrote.
        prompt: The prompt that it was asked to rewrite.
        keep: Words and phrases that must not change.

    Raises:
        NoRewriteError: The answer is no rewrite, or it lost something that must not change.
    """
    text = re.split(rf"</{_THOUGHT}>", answer, flags=re.IGNORECASE)[-1].strip()
    if re.search(rf"<{_THOUGHT}>|<\|", text, re.IGNORECASE):
        raise NoRewriteError("the model did not finish its thoughts; raise the server's limit of tokens")
    text = _unwrapped(text, prompt)
    if (label := _LABEL.match(text)) and not _LABEL.match(prompt):
        text = _unwrapped(text[label.end() :].strip(), prompt)
    if not text:
        raise NoRewriteError("the model's answer is empty")
    if _REFUSAL.match(text) and not _REFUSAL.match(prompt):
        raise NoRewriteError(f"the model refused: {one_line(text)}")
    if len(text.splitlines()) > len(prompt.strip().splitlines()):
        raise NoRewriteError("the model's answer has several lines, so it is more than a rewrite")
    if len(text) > len(prompt) + MOST_ADDED:
        raise NoRewriteError("the model's answer is longer than a rewrite can be")
    if _is_json(text):
        raise NoRewriteError("the model's answer is JSON, not a rewrite")
    for span in lost(prompt, text, keep):
        raise NoRewriteError(f"the model's rewrite lost '{one_line(span)}'")
    return text


def lost(prompt: str, rewrite: str, keep: Sequence[str] = ()) -> list[str]:
    """What must not change in a prompt, and what a rewrite does not have as often as the prompt has it.

    These are tags such as ``<lora:x:0.8>``, brackets, wildcards, ``BREAK``, quoted text, and what ``keep`` names.
    """
    spans = dict.fromkeys([*_SYNTAX.findall(prompt), *_groups(prompt)])
    missing = [span for span in spans if rewrite.count(span) < prompt.count(span)]
    for phrase in keep:
        words = r"\s+".join(map(re.escape, phrase.split()))
        finder = re.compile(rf"(?<![A-Za-z0-9_]){words}(?![A-Za-z0-9_])", re.IGNORECASE)
        if words and finder.search(prompt) and not finder.search(rewrite):
            missing.append(phrase)
    return missing


def one_line(text: str) -> str:
    """A text of somebody else as one short line without control characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= 300 else f"{line[:300]}…"


def _unwrapped(text: str, prompt: str) -> str:
    """A text without a code fence and without quotation marks around the whole, unless the prompt begins with them."""
    if fence := re.fullmatch(r"```\w*\n(.*?)\n?```", text, re.DOTALL):
        text = fence[1].strip()
    for left, right in _AROUND:
        inner = text[len(left) : -len(right)]
        whole = text.startswith(left) and text.endswith(right) and left not in inner and right not in inner
        if whole and not prompt.strip().startswith(left):
            return inner.strip()
    return text


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


def _groups(text: str) -> list[str]:
    """The outermost pairs of brackets, each with what is between them."""
    opened: list[int] = []
    found: list[tuple[int, int]] = []
    for place, character in enumerate(text):
        if character in _BRACKETS.values():
            opened.append(place)
        elif opened and text[opened[-1]] == _BRACKETS.get(character):
            start = opened.pop()
            while found and found[-1][0] > start:
                found.pop()
            found.append((start, place + 1))
    return [text[start:end] for start, end in found]


"""Asks a server for a rewrite of a prompt: ``semdpo serve``, or any server with OpenAI's chat completions.

It needs the standard library of Python 3.10 only, because image programs bring a Python of their own. The files for
them hold copies of this module and of `semdpo.chat_answers`; ``python integrations/copy_client.py`` renews them.
"""

import http.client
import ipaddress
import json
import logging
import os
import re
import time
import unicodedata
import urllib.error
import urllib.request
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

DEFAULT_URL = "http://127.0.0.1:7331"
TOKEN_VARIABLE = "SEMDPO_TOKEN"  # the environment variable that holds the key
HOSTS_VARIABLE = "SEMDPO_TOKEN_HOSTS"  # the hosts that may get a key, with commas between them; loopback always may
LENGTHS = ("auto", "short", "medium", "long")
# What another server's model is asked to do. It is not sent to `semdpo serve`.
INSTRUCTION = (
    "You rewrite prompts for a text-to-image model. Describe the same image in more detail: style, light, composition. "
    "Do not add, remove or change things, numbers, colours or places. Copy quoted text, tags such as <lora:x:0.8>, "
    "brackets such as (word:1.2), and words such as BREAK letter by letter. Answer with the new prompt, in one line."
)
KEPT = "the prompt is kept:"
MOST_BYTES = 1 << 20  # of an answer
TRIES = 4  # of a request that a busy server turns away

_LENGTHS_IN_WORDS = {"short": "at most 25 words", "medium": "about 50 words", "long": "about 100 words"}

log = logging.getLogger("semdpo")


class Reply(NamedTuple):
    """What a prompt became.

    Attributes:
        rewrite: The text for the image model; the user's prompt where ``reason`` is not empty.
        original: The user's prompt.
        drift: The cosine distance of the two, 0 to 2; None where the server does not measure it.
        reason: Why ``rewrite`` is the user's prompt; empty when it is the server's.
        fault: Whether the server is the reason: it is down, or its answer was no rewrite. Asking again may help.
    """

    rewrite: str
    original: str
    drift: float | None
    reason: str = ""
    fault: bool = False


def optimize(
    prompt: str,
    url: str = DEFAULT_URL,
    *,
    keep: Sequence[str] = (),
    length: str | int | None = None,
    max_drift: float | None = None,
    seed: int = 0,
    model: str = "",
    token: str = "",
    instruction: str = INSTRUCTION,
    timeout: float = 60.0,
) -> Reply:
    """Asks a server for a rewrite of a prompt.

    ``semdpo serve`` measures the drift and guards the prompt. What another server answers is cleaned here, and refused
    where it is no rewrite or lost some of the prompt's syntax, its quoted text or ``keep``.

    Args:
        prompt: What the image should show.
        url: The server, with or without ``/v1``. With a whole address that ends in ``/chat/completions``, only OpenAI's
            route is used.
        keep: Words and phrases that must not change.
        length: ``"short"``, ``"medium"``, ``"long"``, or the most tokens; None or ``"auto"`` leaves it to the server.
        max_drift: The largest drift of a rewrite, 0 to 2; None leaves it to the server.
        seed: The seed of the sampling.
        model: The model's name; empty leaves it to the server.
        token: The server's key.
        instruction: What another server's model is asked to do; empty for a model that was trained to rewrite.
        timeout: The seconds that the whole request may take.

    Raises:
        NoRewriteError: The server is not there, refuses, or answers with something that is no rewrite; or ``keep`` is
            one text instead of a list.
    """
    if isinstance(keep, str):  # its letters would be the phrases
        raise NoRewriteError(f"keep is the text '{one_line(keep)}'; give a list of words and phrases")
    if not prompt.strip():
        return Reply(prompt, prompt, 0.0, f"{KEPT} it is empty")
    length = None if length in ("", "auto") else length
    own_route, chat_route = _routes(url)
    until = time.monotonic() + timeout
    if own_route:
        wish = {"prompt": prompt, "keep": list(keep), "length": length, "max_drift": max_drift, "seed": seed}
        status, answer = _asked(own_route, wish | {"model": model or None}, token, until)
        if status == 200 and isinstance(answer, dict) and "results" in answer:
            return _from_record(prompt, answer)
        if status not in (200, 404, 405, 501):  # these say that the server does not know this route
            raise _refused(own_route, status, answer, token)
    if max_drift is not None:
        raise NoRewriteError(f"{_origin(url)} measures no drift; leave max_drift unset, or use `semdpo serve`")
    body = _conversation(prompt, keep, length, instruction) | {"seed": seed} | ({"model": model} if model else {})
    status, answer = _asked(chat_route, body, token, until)
    if status != 200:
        raise _refused(chat_route, status, answer, token)
    return _from_choice(prompt, keep, answer)


def optimize_or_keep(prompt: str, url: str = DEFAULT_URL, *, token_env: str = TOKEN_VARIABLE, **options: Any) -> Reply:
    """As `optimize`, but a fault gives the user's prompt with the reason, and one line in the log.

    Args:
        prompt: What the image should show.
        url: The server.
        token_env: The environment variable with the server's key; see `token_for`.
        options: The other arguments of `optimize`.
    """
    try:
        reply = optimize(prompt, url, token=token_for(url, token_env), **options)
    except NoRewriteError as error:
        reply = Reply(prompt, prompt, 0.0, f"{KEPT} {error}", fault=True)
    if reply.reason:
        log.warning("semdpo: %s", reply.reason)
    return reply


def token_for(url: str, variable: str) -> str:
    """The key in an environment variable; empty where the variable is not named, or is the usual one and not set.

    Workflows travel, and may name any server and any variable. So only variables whose name begins with ``SEMDPO_``
    are read, and the key is sent to this machine and to the hosts in ``SEMDPO_TOKEN_HOSTS`` only.

    Args:
        url: The server that will get the key.
        variable: The variable's name.

    Raises:
        NoRewriteError: The variable is not set or may not be read, or the server may not get its key.
    """
    if not variable.strip():
        return ""
    if not re.fullmatch(r"SEMDPO_[A-Z0-9_]+", variable.strip()):
        raise NoRewriteError("token_env must be the name of an environment variable that begins with SEMDPO_")
    token = os.environ.get(variable.strip(), "").strip()
    if not token and variable.strip() != TOKEN_VARIABLE:
        raise NoRewriteError(f"the environment variable {variable.strip()} is not set; set it and restart this program")
    host = _host(url)
    if token and not _is_here(host) and host not in re.split(r"[\s,]+", os.environ.get(HOSTS_VARIABLE, "").lower()):
        raise NoRewriteError(f"{host} may not get the key in {variable.strip()}; allow it with {HOSTS_VARIABLE}={host}")
    return token


def refuse_wrong_url(url: str) -> None:
    """Refuses what is no server's URL.

    Raises:
        NoRewriteError: The URL is not one of a server, or holds a password or a query.
    """
    _host(url)


def phrases(text: str) -> list[str]:
    """The phrases of a text that has commas, of any script, or new lines between them."""
    return [phrase.strip() for phrase in re.split(r"[,\n，、،]", text) if phrase.strip()]


def _routes(url: str) -> tuple[str, str]:
    """The address of semdpo's own route, empty where the URL names OpenAI's, and of OpenAI's."""
    _host(url)
    base = url.strip().rstrip("/")
    if base.endswith("/chat/completions"):
        return "", base
    base = base.removesuffix("/optimize").removesuffix("/v1")
    return f"{base}/v1/optimize", f"{base}/v1/chat/completions"


def _host(url: str) -> str:
    """The host of a URL, which must be one of a server, and hold no password that a workflow would carry away."""
    try:
        parts = urlsplit(url.strip())
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError:
        parts = urlsplit("")
    fine = parts.scheme in ("http", "https") and parts.hostname and re.fullmatch(r"[!-~]+", url.strip())
    if not fine or parts.username is not None or parts.query or parts.fragment:
        shown = one_line(parts.hostname or re.sub(r".*@", "", url))
        raise NoRewriteError(f"the URL of '{shown}' is not one of a server; write it like {DEFAULT_URL}")
    return str(parts.hostname)


def _origin(url: str) -> str:
    parts = urlsplit(url.strip())
    return f"{parts.scheme}://{parts.netloc}"


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follows nothing: another host must not get the key, and a prompt would get lost on the way."""


def _asked(url: str, body: dict[str, Any], token: str, until: float) -> tuple[int, Any]:
    """The status and the JSON of an answer (None where it is not JSON); asks a busy server again."""
    if not re.fullmatch(r"[!-~]*", token):
        raise NoRewriteError("the key has characters that no header can carry; copy it again")
    for attempt in range(1, TRIES + 1):
        status, headers, text = _sent(url, body, token, until)
        wait = _seconds(headers.get("Retry-After"), attempt)
        if status not in (429, 503) or attempt == TRIES or time.monotonic() + wait > until:
            break
        time.sleep(wait)
    if 300 <= status < 400:
        raise NoRewriteError(
            f"{_origin(url)} sends on to '{one_line(headers.get('Location', ''))}'; if it is right, give that URL"
        )
    try:
        return status, json.loads(text)
    except (ValueError, RecursionError):
        return status, None


def _sent(url: str, body: dict[str, Any], token: str, until: float) -> tuple[int, Any, bytes]:
    """The status, the headers and the bytes of one answer."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    proxies = [urllib.request.ProxyHandler({})] if _is_here(_host(url)) else []  # a proxy does not know this machine
    opener = urllib.request.build_opener(_NoRedirects, *proxies)
    try:
        try:
            answer = opener.open(request, timeout=max(0.1, until - time.monotonic()))
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            return int(answer.status or 0), answer.headers, _read(answer, until)
    except (OSError, http.client.HTTPException, ValueError) as error:
        cause = getattr(error, "reason", error)
        if isinstance(cause, TimeoutError):
            raise NoRewriteError(f"{_origin(url)} took too long to answer; try again, or raise the timeout") from None
        why = one_line(str(getattr(cause, "strerror", None) or cause)) or type(cause).__name__
        raise NoRewriteError(f"{_origin(url)} is not there ({why}); start `semdpo serve`, or correct the URL") from None


def _read(answer: Any, until: float) -> bytes:
    text = b""
    while part := answer.read1(1 << 16):
        text += part
        if len(text) > MOST_BYTES:
            raise NoRewriteError("the server's answer is larger than a rewrite can be; check the URL")
        if time.monotonic() > until:
            raise TimeoutError
    return text


def _seconds(retry_after: str | None, attempt: int) -> float:
    """How long a busy server asks to wait: in seconds, or until a date."""
    try:
        return min(max(0.0, float(retry_after or 2 ** (attempt - 1))), 1e6)
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(str(retry_after)).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return float(2 ** (attempt - 1))


def _refused(url: str, status: int, answer: Any, token: str) -> NoRewriteError:
    error = answer.get("error", answer) if isinstance(answer, dict) else ""
    said = str(error.get("message", "") if isinstance(error, dict) else error)
    said = one_line(said.replace(token, "…") if token else said)
    if status in (401, 403):
        said = f"put the right key into {TOKEN_VARIABLE}, or the variable you named, and restart this program ({said})"
    return NoRewriteError(f"{_origin(url)} answers {status}{': ' if said else ''}{said}")


def _from_record(prompt: str, answer: Any) -> Reply:
    """The first result of ``semdpo serve``."""
    try:
        record = answer["results"][0]
        rewrite, drift, reason = record["rewrite"], record["drift"], record["reason"]
        right = isinstance(rewrite, str) and isinstance(reason, str) and -0.01 <= drift <= 2.01
    except (KeyError, IndexError, TypeError):
        right = False
    if not right:
        raise NoRewriteError("the server's answer has another form than that of `semdpo serve`; update both sides")
    if reason:
        return Reply(prompt, prompt, 0.0, one_line(reason))
    return Reply(_readable(rewrite), prompt, min(max(float(drift), 0.0), 2.0))


def _readable(rewrite: str) -> str:
    if not rewrite.strip():
        raise NoRewriteError("the server's rewrite is empty")
    if any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\r\t" for c in rewrite):
        raise NoRewriteError("the server's rewrite has characters that are not text")
    return rewrite


def _conversation(prompt: str, keep: Sequence[str], length: str | int | None, instruction: str) -> dict[str, Any]:
    wishes = [instruction.strip()]
    if keep:
        wishes.append(f"Keep these words as they are: {'; '.join(keep)}.")
    if length is not None:
        wishes.append(f"Write {_LENGTHS_IN_WORDS.get(str(length), f'at most {length} tokens')}.")
    system = " ".join(filter(None, wishes))
    messages = [{"role": "system", "content": system}] if system else []
    return {"messages": [*messages, {"role": "user", "content": prompt}], "stream": False}


def _from_choice(prompt: str, keep: Sequence[str], answer: Any) -> Reply:
    """The first choice of a chat completion."""
    if isinstance(answer, dict) and isinstance(answer.get("semdpo"), dict):  # `semdpo serve` adds its records
        return _from_record(prompt, answer["semdpo"])
    try:
        choice = answer["choices"][0]
        text, refusal, end = choice["message"]["content"], choice["message"].get("refusal"), choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise NoRewriteError("the server's answer is not a chat completion; check the URL") from None
    if refusal or not isinstance(text, str):
        raise NoRewriteError(f"the model gave no text ({one_line(str(refusal or end))})")
    if end == "content_filter":  # which may have cut a text off
        raise NoRewriteError("the server withheld the answer (its content filter)")
    if end == "length":
        raise NoRewriteError("the model's answer was cut off; raise the server's limit of tokens")
    return Reply(rewrite_in(_readable(text), prompt, keep), prompt, None)


# ---- the end of the copy ----
