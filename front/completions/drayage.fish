# fish completion of drayage, and of the tools where `drayage env fish | source` has put them into PATH. What may stand where is asked
# of `drayage __complete`.
function __drayage_complete
    set -l asked (commandline -opc)
    set -l current (commandline -ct)
    set -l front drayage
    if string match -q -r '(^|/)drayage$' -- $asked[1]
        set front $asked[1]
        set -e asked[1]
    else
        set asked[1] (string replace -r '.*/' '' -- $asked[1])
    end
    for line in ($front __complete $asked "$current" 2>/dev/null)
        if test "$line" = :files
            set -l part (string replace -r -- '^--[^=]*=' '' $current)
            set -l before (string replace -r -- '^(--[^=]*=)?.*' '$1' $current)
            for file in (__fish_complete_path "$part")
                echo -- $before$file
            end
        else
            echo -- $line
        end
    end
end
complete -c drayage -f -a '(__drayage_complete)'
for tool in pull push unpack bundle ns portmap spawn keep run compose
    # Only ours: other programs have some of these names, too.
    if string match -q '*/lib/drayage/bin/*' -- (type -p $tool 2>/dev/null)
        complete -c $tool -f -a '(__drayage_complete)'
    end
end
