# Writes a page of the manual in man(7)'s macros.
#
# awk -v page="keep logs" -f page.awk keep.md help: a verb's page. Options, operands and verbs come from `help`, what `keep logs --help`
# prints, and the rest from keep.md, where `# keep logs` is above a description and its sections. A section that a verb lacks there is
# the tool's; examples are not.
# awk -v page=drayage -v section=7 -v about=… -f page.awk drayage.md: a page that is all written; its sections are the file's.

function upper(text) { gsub(/`/, "", text); return toupper(text) }

# Text outside code: its own backslashes and dashes, links, bold, pages.
function prose(text,   done, inner) {
    gsub(/\\/, "\\e", text)
    gsub(/…/, "...", text)
    gsub(/[–—]/, "\\(em", text)
    while (match(text, /\[[^]]*\]\([^)]*\)/)) {
        inner = substr(text, RSTART + 1, RLENGTH - 1)
        sub(/\]\(.*/, "", inner)
        text = substr(text, 1, RSTART - 1) inner substr(text, RSTART + RLENGTH)
    }
    while (match(text, /\*\*[^*]*\*\*/))
        text = substr(text, 1, RSTART - 1) "\\fB" substr(text, RSTART + 2, RLENGTH - 4) "\\fR" substr(text, RSTART + RLENGTH)
    while (match(text, /(^|[[ (])\*[a-zA-Z][^*]*\*/)) {
        inner = substr(text, RSTART, RLENGTH - 1)
        sub(/\*/, "\\fI", inner)
        text = substr(text, 1, RSTART - 1) inner "\\fR" substr(text, RSTART + RLENGTH)
    }
    gsub(/(^| )--?[a-z]/, "&\001", text)
    while (match(text, /--?[a-z]\001/)) {
        inner = substr(text, RSTART, RLENGTH - 1)
        gsub(/-/, "\\-", inner)
        text = substr(text, 1, RSTART - 1) inner substr(text, RSTART + RLENGTH)
    }
    done = ""
    while (match(text, /[a-zA-Z_][a-zA-Z_.-]*\([1-8]\)/)) {
        inner = substr(text, RSTART, RLENGTH - 3)
        gsub(/-/, "\\-", inner)
        done = done substr(text, 1, RSTART - 1) "\\fB" inner "\\fR" substr(text, RSTART + RLENGTH - 3, 3)
        text = substr(text, RSTART + RLENGTH)
    }
    return done text
}

# Text that somebody may type: each character as it is.
function code(text) {
    gsub(/\\/, "\\e", text)
    gsub(/-/, "\\-", text)
    gsub(/\047/, "\\(aq", text)
    gsub(/\^/, "\\(ha", text)
    gsub(/~/, "\\(ti", text)
    gsub(/`/, "\\(ga", text)
    gsub(/…/, "...", text)
    return text
}

function inline(text,   part, count, i, done) {
    count = split(text, part, "`")
    for (i = 1; i <= count; i++) done = done (i % 2 ? prose(part[i]) : "\\fB" code(part[i]) "\\fR")
    return done
}

# A text, in lines of the length that lint likes; none begins as a request does.
function fill(text,   word, count, i, line, long) {
    count = split(text, word, " ")
    # Where a long word may be broken; a line of one word cannot be justified.
    for (i = 1; i <= count; i++) if (length(word[i]) > 40 && gsub(/,/, ",\\:", word[i])) long = ".na"
    if (long != "") print long
    for (i = 1; i <= count; i++) {
        if (line != "" && length(line) + length(word[i]) > 74) { put(line); line = "" }
        line = line (line == "" ? "" : " ") word[i]
    }
    if (line != "") put(line)
}

function put(line) {
    if (line ~ /^[.\047]/) line = "\\&" line
    print line
    fresh = 0
}

function head(title) { print ".SH " (title ~ / / ? "\"" title "\"" : title); fresh = 1 }

function subhead(title) { print ".SS " (title ~ / / ? "\"" title "\"" : title); fresh = 1 }

function paragraph() { if (!fresh) print ".PP"; fresh = 0 }

function tagged(tag, text) { print ".TP"; put(tag); fill(text); fresh = 0 }

# A block of code, and what ends it.
function block(line) {
    if (!in_block) { paragraph(); print ".RS 4\n.EX"; in_block = 1; blanks = 0 }
    for (; blanks > 0; blanks--) print ""
    put(code(line))
}
function end_block() { if (in_block) print ".EE\n.RE"; in_block = blanks = 0 }

# What has been gathered of a paragraph, an entry of a list, or a row of a table.
function flush(   cell, count, i, tag) {
    end_block()
    if (text == "") return
    if (kind == "row") {
        count = split(text, cell, / *\| */)
        # The cells between the first and the last stand behind the first, if they say something.
        for (i = 2; i < count; i++) if (cell[i] != "") tag = tag (tag == "" ? "" : ", ") inline(cell[i])
        tagged(inline(cell[1]) (tag == "" ? "" : " (" tag ")"), inline(cell[count]))
    } else if (kind == "tag") {
        i = index(text, "`: ")
        tagged(inline(substr(text, 1, i)), inline(substr(text, i + 3)))
    } else if (kind == "bullet") { print ".IP \\(bu 2"; fill(inline(text)) }
    else if (kind == "number") { print ".IP " substr(text, 1, index(text, ".")) " 4"; fill(inline(substr(text, index(text, ".") + 2))) }
    else { paragraph(); fill(inline(text)) }
    text = kind = ""
}

function begin(line, of) { flush(); text = line; kind = of }

# Writes lines of Markdown.
function markdown(lines,   line, count, i, row, fenced) {
    count = split(lines, line, "\n")
    for (i = 1; i <= count; i++) {
        row = line[i]
        if (row ~ /^<!--/) { while (line[i] !~ /-->/) i++; continue }
        if (row ~ /^```/) { fenced = !fenced; if (!fenced) end_block(); else flush(); continue }
        if (fenced) { block(row); continue }
        if (row == "") { if (in_block) blanks++; else flush(); continue }
        if (row ~ /^    / && (text == "" || in_block)) { block(substr(row, 5)); continue }
        if (row ~ /^## /) { flush(); head(upper(substr(row, 4))); continue }
        if (row ~ /^### /) { flush(); gsub(/`/, "", row); subhead(substr(row, 5)); continue }
        if (row ~ /^\|[-| ]*$/) { text = kind = ""; continue }
        if (row ~ /^\| /) { sub(/^\| /, "", row); sub(/ \|$/, "", row); begin(row, "row"); continue }
        if (row ~ /^- `[^`]*`(, `[^`]*`)*: /) { begin(substr(row, 3), "tag"); continue }
        if (row ~ /^- /) { begin(substr(row, 3), "bullet"); continue }
        if (row ~ /^[0-9]+\. /) { begin(row, "number"); continue }
        if (in_block) end_block()
        sub(/^ +/, "", row)
        if (text == "" ) begin(row, "text")
        else text = text " " row
    }
    flush()
}

# Usage, options and operands as --help has them: what stands for something else in italics.
function synopsis(line,   done) {
    line = code(line)
    while (match(line, /<[^>]*>|\[[A-Z][^]<]*\]/)) {
        done = done substr(line, 1, RSTART - 1)
        if (substr(line, RSTART, 1) == "<") done = done "\\fI" substr(line, RSTART + 1, RLENGTH - 2) "\\fR"
        else done = done "[\\fI" substr(line, RSTART + 1, RLENGTH - 2) "\\fR]"
        line = substr(line, RSTART + RLENGTH)
    }
    return done line
}

function option(tag,   name) {
    name = tag
    sub(/[ [=<].*/, "", name)
    # `-p, --publish <SPEC>`: what is typed in bold.
    match(tag, /^[^<[]*/)
    name = substr(tag, 1, RLENGTH)
    tag = substr(tag, RLENGTH + 1)
    sub(/ +$/, "", name)
    gsub(/, /, "\\fR, \\fB", name)
    gsub(/-/, "\\-", name)
    return (name == "" ? "" : "\\fB" name "\\fR" (tag ~ /^</ ? " " : "")) synopsis(tag)
}

# Writes an entry of --help's lists, whose text may go on in the lines below it.
function entry(   i, count, part) {
    if (entry_tag == "" ) return
    if (!(part_name in written)) {
        if (part_name == "Options" || part_name == "Arguments" || part_name == "Commands") head(upper(part_name))
        else subhead(part_name)
        written[part_name]
    }
    if (part_name == "Commands") {
        if (entry_text !~ /[.;:]$/) entry_text = entry_text "."
        tagged("\\fB" code(entry_tag) "\\fR", inline(entry_text " See " name_of(page " " entry_tag) "(1)."))
    } else tagged(part_name == "Arguments" ? synopsis(entry_tag) : option(entry_tag), inline(entry_text == "" ? "As above." : entry_text))
    for (i = 1; i <= values; i++) {
        split(value[i], part, ": ")
        print ".br"
        fill("\\fB" code(part[1]) "\\fR: " inline(substr(value[i], length(part[1]) + 3)))
    }
    entry_tag = entry_text = ""
    values = 0
}

function name_of(page) { gsub(/ /, "-", page); return "drayage-" page }

# The written text of a section: the verb's own, or that of the nearest one above it: `## Files of verbs` before `## Files`.
function written_of(title,   of) {
    for (of = page; of != ""; ) {
        if (of != page && (of, title " OF VERBS") in body) return body[of, title " OF VERBS"]
        if ((of, title) in body) return body[of, title]
        if (!sub(/ [^ ]*$/, "", of)) return ""
    }
}

FNR == 1 { file++ }

file == 1 {
    if (section) { if (FNR > 1) all = all $0 "\n"; next }
    if (/^# /) { of = substr($0, 3); title = ""; next }
    if (/^## /) { title = toupper(substr($0, 4)); next }
    body[of, title] = body[of, title] $0 "\n"
    next
}

{ help[++helps] = $0 }

END {
    name = section ? page : name_of(page)
    if (!section) {
        section = 1
        about = tolower(substr(help[1], 1, 1)) substr(help[1], 2)
        # OCI's and other names stay as they are.
        if (substr(help[1], 2, 1) ~ /[A-Z]/) about = help[1]
        is_verb = 1
    }
    print ".\\\" Made by front/manual."
    print ".TH " toupper(name) " " section " " date " \"drayage " version "\" \"drayage manual\""
    # Without hyphens, as names are searched for.
    print ".ad l\n.nh"
    head("NAME")
    sub(/ \[default: .*\]$/, "", about)
    fill(name " \\- " inline(about))
    if (!is_verb) { if (all !~ /^\n*## /) head("DESCRIPTION"); markdown(all); exit }

    head("SYNOPSIS")
    for (i = 1; help[i] !~ /^Usage: /; i++);
    for (first = 1; help[i] != ""; i++) {
        sub(/^(Usage:| +) */, "", help[i])
        match(help[i], /^[a-z]+( [a-z]+)*/)
        if (!first) print ".br"
        fill("[\\fBdrayage\\fR] \\fB" substr(help[i], 1, RLENGTH) "\\fR" synopsis(substr(help[i], RLENGTH + 1)))
        first = 0
    }
    head("DESCRIPTION")
    markdown(body[page, ""])
    for (; i <= helps; i++) {
        line = help[i]
        if (line ~ /^[A-Z][a-z]+:$/) { entry(); part_name = substr(line, 1, length(line) - 1); continue }
        if (part_name == "" || part_name == "Examples" || line ~ /^[^ ]/) continue
        if (line ~ /^ +- [a-z0-9]+: /) { sub(/^ +- /, "", line); value[++values] = line; continue }
        if (line ~ /^ +Possible values:$/) continue
        if (line ~ /^ *$/) continue
        if (line ~ /^          / && line !~ /^ +-[-a-zA-Z]/ && entry_tag != "") {
            sub(/^ +/, "", line)
            entry_text = entry_text (entry_text == "" ? "" : " ") line
            continue
        }
        entry()
        sub(/^ +/, "", line)
        n = index(line, "  ")
        entry_tag = n ? substr(line, 1, n - 1) : line
        entry_text = n ? substr(line, n) : ""
        sub(/^ +/, "", entry_text)
        # Nothing is said of it: its name says enough.
        if (part_name == "Arguments" && n && entry_text == "") entry_tag = ""
    }
    entry()
    for (i = split("EXIT STATUS,ENVIRONMENT,FILES", titles, ","); i > 0; i--) order[4 - i] = titles[4 - i]
    for (i = 1; i <= 3; i++) { head(titles[i]); markdown(written_of(titles[i])) }
    head("EXAMPLES")
    markdown(body[page, "EXAMPLES"])
    head("SEE ALSO")
    also = page
    if (sub(/ [^ ]*$/, "", also)) also = name_of(also) "(1), "
    else also = ""
    also = also body[page, "SEE ALSO"]
    gsub(/\n/, " ", also)
    sub(/[ ,]*$/, "", also)
    fill(inline(also (also == "" ? "" : ", ") "drayage(7)"))
}
