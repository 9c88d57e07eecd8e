"""Conda's versions in pip's words."""

import re

_ONE = re.compile(r"(?P<sign>==|>=|<=|!=|~=|>|<|=)?\s*(?P<number>[0-9][A-Za-z0-9._+!-]*)(?P<star>\*?)")
_RELEASE = re.compile(r"[0-9]+(\.[0-9]+)*")


def pip_version(text: str) -> tuple[str | None, str]:
    """Conda's version -> pip's, and a remark; None for one that cannot be read, with the reason.

    A single `=` is conda's "begins with"; what stands behind a second one is a build, which PyPI does not have.
    """
    if not text or text == "*":
        return "", ""
    if "|" in text or "[" in text:
        return None, "want a version that pip can read, such as =1.12, ==1.12.0 or >=1.12,<2"
    remark = ""
    bare = text.lstrip("=").strip()
    if (text.startswith("=") and re.search(r"[\s=]", bare)) or (text[0] not in "=<>!~" and re.search(r"[\s=]", text)):
        number, _, build = re.sub(r"\s+", "=", bare).partition("=")
        prefix = "==" if text.startswith("==") else "="
        text, remark = f"{prefix}{number}", f"the build {build.strip('=')} is left out: PyPI has none"
    parts = [_ONE.fullmatch(part.strip()) for part in text.split(",")]
    if not all(parts):
        return None, "want a version that pip can read, such as =1.12, ==1.12.0 or >=1.12,<2"
    told = [_in_pips_words(part["sign"] or "=", part["number"].rstrip("."), part["star"]) for part in parts if part]
    return ",".join(told), remark


def _in_pips_words(sign: str, number: str, star: str) -> str:
    """Pip takes `.*` behind == and != alone, and behind nothing but a release's numbers: no 1.0rc1.*, no >=1.2.*."""
    begins_with = (sign == "=" or (star and sign in ("==", "!="))) and _RELEASE.fullmatch(number)
    return f"{'==' if sign == '=' else sign}{number}{'.*' if begins_with else ''}"
