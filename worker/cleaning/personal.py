"""Finds and masks personal data in texts: addresses and numbers that identify people.

| kind | what is taken |
| --- | --- |
| e-mail | `name@host.domain`, also with `(at)` and `[at]` |
| IBAN | two letters, two digits, 11 to 30 letters and digits, in groups or not; checked modulo 97 |
| card | 13 to 19 digits, in groups or not, of a known network; checked by Luhn's digit |
| IP | IPv4 and IPv6 addresses that `ipaddress` accepts, none of four parts that is a version |
| phone | `+` or `00` and a country code; a national number in groups with a 0 or bracket in front |

Names of people and postal addresses are not found: no pattern tells them from other words.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from worker.cleaning.rows import Row, map_texts
from worker.cleaning.steps import Step

_EMAIL = r"[\w.+%'-]{1,64}(?:@|\s?[\[(]at[\])]\s?)(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}\b"
_IBAN = r"\b[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?\b"
_CARD = r"(?<![\d.,-])(?:2[2-7]|3[0-9]|4\d|5\d|6\d)(?:[ -]?\d){11,17}(?![\d-])"
_IPV4 = r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.]*\d)"
_IPV6 = r"(?<![\w:])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{0,4}(?![\w:])"
_PHONE = (
    r"(?<![\w.+-])(?:"
    r"(?:\+|00)[1-9]\d{0,2}[ .-]?(?:\(0?\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]?\d{2,4}){1,4}"
    r"|\(\d{2,5}\)[ .-]?\d{2,4}(?:[ .-]\d{2,4}){1,3}"
    r"|0\d{1,4}[ ./-]\d{2,4}(?:[ .-]?\d{2,4}){1,3}"
    r"|[2-9]\d{2}[-.][2-9]\d{2}[-.]\d{4})(?![\w-])"
)


def _is_iban(text: str) -> bool:
    flat = re.sub("[ -]", "", text)
    moved = flat[4:] + flat[:4]
    return 15 <= len(flat) <= 34 and int("".join(str(int(each, 36)) for each in moved)) % 97 == 1


def _is_card(text: str) -> bool:
    digits = [int(each) for each in reversed(text) if each.isdigit()]
    doubled = [sum(divmod(2 * each, 10)) for each in digits[1::2]]
    return 13 <= len(digits) <= 19 and (sum(digits[::2]) + sum(doubled)) % 10 == 0


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return text.count(":") != 2 or ("::" in text and len(text) > 3)


def _is_phone(text: str) -> bool:
    return 8 <= sum(map(str.isdigit, text)) <= 15


Check = Callable[[str], bool]
KINDS: dict[str, tuple[re.Pattern[str], Check]] = {  # in this order: an IBAN may hold a card
    "e-mail": (re.compile(_EMAIL, re.IGNORECASE), lambda _: True),
    "IBAN": (re.compile(_IBAN), _is_iban),
    "card": (re.compile(_CARD), _is_card),
    "IP": (re.compile(f"{_IPV4}|{_IPV6}"), _is_ip),
    "phone": (re.compile(_PHONE), _is_phone),
}


class MaskPersonal(Step):
    """Puts the kind in brackets, such as `[e-mail]`, in place of each find."""

    name = "mask-personal"
    parameters: Mapping[str, Any] = {"kinds": ", ".join(KINDS)}

    def __init__(self) -> None:
        self._found: Counter[str] = Counter()

    def __call__(self, content: Row) -> Row:
        """The row with its texts masked."""
        return map_texts(content, lambda text: mask(text, self._found))

    def found(self) -> dict[str, Any]:
        """How many of each kind were masked."""
        return dict(self._found)


def mask(text: str, found: Counter[str]) -> str:
    """The text with personal data masked; `found` counts them by kind."""
    for kind, (pattern, check) in KINDS.items():

        def replace(match: re.Match[str], kind: str = kind, check: Check = check) -> str:
            if not check(match[0]):
                return match[0]
            found[kind] += 1
            return f"[{kind}]"

        text = pattern.sub(replace, text)
    return text
