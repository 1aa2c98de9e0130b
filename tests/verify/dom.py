"""HTML as a browser builds it, flattened so that two documents can be compared node by node (html5lib)."""

import re

import html5lib


def closing(html):
    """</body> and </html> with their places, those in comments, raw text and tags left out."""
    token = re.compile(
        rb"<!--.*?(?:--!?>|\Z)|<(script|style|title|textarea|xmp|iframe|noembed|noframes)\b.*?(?:</\1\b|\Z)"
        rb"|</(body|html)(?=[\s/>])[^>]*>|</?[a-zA-Z](?:\"[^\"]*\"|'[^']*'|[^>\"'])*>",
        re.S | re.I,
    )
    return [(m[2].lower(), m.start()) for m in token.finditer(html) if m[2]]


def tree(text):
    """The DOM as a flat list: ("tag", name, attributes), ("end", name), ("text", data), ("comment", data)."""
    document = html5lib.parse(text, treebuilder="etree")
    out = []
    for token in html5lib.getTreeWalker("etree")(document):
        kind = token["type"]
        if kind in ("StartTag", "EmptyTag"):
            out.append(("tag", token["name"], {name: value for (_, name), value in token["data"].items()}))
            if kind == "EmptyTag":
                out.append(("end", token["name"]))
        elif kind == "EndTag":
            out.append(("end", token["name"]))
        elif kind in ("Characters", "SpaceCharacters"):
            out.append(("text", token["data"]))
        elif kind == "Comment":
            out.append(("comment", token["data"]))
        else:
            out.append((kind, str(token.get("name"))))
    return out


def joined(items):
    """Without the end tags of void elements, with neighbouring texts made one."""
    out = []
    for item in items:
        if item == ("end", "img"):
            continue
        if item[0] == "text" and out and out[-1][0] == "text":
            out[-1] = ("text", out[-1][1] + item[1])
        else:
            out.append(item)
    return out


def without_wrappers(after, before):
    """Drops formatting elements that a parser opened again for the pixel alone, since they are empty now."""
    stray = len(after) - len(before)
    i = 0
    while i + 1 < len(after) and stray > 0:
        one, two = after[i], after[i + 1]
        if one[0] == "tag" and two == ("end", one[1]) and (i >= len(before) or before[i] != one):
            del after[i : i + 2]
            stray -= 2
            i = max(i - 1, 0)
        else:
            i += 1
    return joined(after)
