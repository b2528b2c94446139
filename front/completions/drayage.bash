# shellcheck shell=bash
# bash completion of drayage, and of the tools where `eval "$(drayage env)"` has put them into PATH. What may stand where is asked of
# `drayage __complete`.
_drayage() {
    local line=${COMP_LINE:0:COMP_POINT} front=drayage words=() current kept candidate files=
    COMPREPLY=()
    read -ra words <<<"$line"
    [[ $line != *[[:space:]] ]] || words+=("")
    current=${words[${#words[@]} - 1]}
    if [[ ${words[0]##*/} == drayage ]]; then
        front=${words[0]}
        words=("${words[@]:1}")
    else
        words[0]=${words[0]##*/}
    fi
    # To readline a word begins behind a colon or an equals sign, too.
    kept=${current%"${current##*[:=]}"}
    [[ $COMP_WORDBREAKS == *:* ]] || { [[ $current == *=* ]] && kept=${current%%=*}= || kept=; }
    while IFS=$'\t' read -r candidate _; do
        if [[ $candidate == :files ]]; then files=1; elif [[ -n $candidate ]]; then COMPREPLY+=("${candidate#"$kept"}"); fi
    done <<<"$("$front" __complete "${words[@]}" 2>/dev/null)"
    [[ -z $files ]] || {
        compopt -o filenames 2>/dev/null
        while IFS= read -r candidate; do
            [[ -z $candidate ]] || COMPREPLY+=("$candidate")
        done <<<"$(compgen -f -- "${current#"$kept"}")"
    }
}
complete -F _drayage drayage
for _drayage_tool in pull push unpack bundle ns portmap spawn keep run compose; do
    # Only ours: other programs have some of these names, too.
    [[ $(type -P "$_drayage_tool") != */lib/drayage/bin/"$_drayage_tool" ]] || complete -F _drayage "$_drayage_tool"
done
unset _drayage_tool
