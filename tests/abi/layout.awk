# SPDX-License-Identifier: MIT
# layout.awk - public headers in, a C program out that prints size and offset of every field of
# every public struct. POSIX awk.
function fields(name, body,    n, parts, i, d, k, names, j, f) {
    gsub(/union *\{[^}]*\}/, "union", body)
    n = split(body, parts, ";")
    for (i = 1; i <= n; i++) {
        d = parts[i]
        gsub(/\[[^]]*\]/, "", d)
        while (match(d, /\(\*[a-z_0-9]+\)/)) { # function pointers; what follows are arguments
            f = substr(d, RSTART + 2, RLENGTH - 3)
            emit(name, f)
            d = substr(d, RSTART + RLENGTH)
            k = 0
            do {
                if (substr(d, 1, 1) == "(") k++
                if (substr(d, 1, 1) == ")") k--
                d = substr(d, 2)
            } while (k > 0 && d != "")
            if (d !~ /\(\*/) d = ""
        }
        if (d !~ /[a-z]/) continue
        k = split(d, names, ",")
        for (j = 1; j <= k; j++) {
            f = names[j]
            sub(/[ \t]+$/, "", f)
            sub(/^.*[ \t*]/, "", f)
            if (f ~ /^[a-z]/) emit(name, f)
        }
    }
}
function emit(name, f) {
    printf "    printf(\"  %%4zu %%4zu %s\\n\", offsetof(%s, %s), sizeof(((%s *)0)->%s));\n", \
        f, name, f, name, f
}
BEGIN {
    print "#include <patchbay/plugin.h>"
    print "#include <stdio.h>"
    print "int main(void) {"
    print "    printf(\"abi %d.%d, bytes of pointers %zu\\n\", PB_ABI_MAJOR, PB_ABI_MINOR, sizeof(void *));"
}
/^[ \t]*#/ { if ($0 !~ /\\$/) next; skipping = 1 }
skipping { if ($0 !~ /\\$/) skipping = 0; next }
{ text = text " " $0 }
END {
    while (match(text, /\/\*/)) { # comments
        head = substr(text, 1, RSTART - 1)
        rest = substr(text, RSTART + 2)
        e = index(rest, "*/")
        text = head " " substr(rest, e + 2)
    }
    while (match(text, /typedef +struct +pb_[a-z_0-9]+ *\{/)) {
        decl = substr(text, RSTART, RLENGTH)
        sub(/^typedef +struct +/, "", decl)
        sub(/ *\{$/, "", decl)
        text = substr(text, RSTART + RLENGTH)
        k = 1
        body = ""
        for (i = 1; k > 0 && i <= length(text); i++) {
            c = substr(text, i, 1)
            if (c == "{") k++
            if (c == "}") k--
            if (k > 0) body = body c
        }
        text = substr(text, i)
        printf "    printf(\"%s %%zu\\n\", sizeof(%s));\n", decl, decl
        fields(decl, body)
    }
    print "    return 0;\n}"
}
