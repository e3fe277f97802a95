#compdef latchkey

autoload -U is-at-least

_latchkey() {
    typeset -A opt_args
    typeset -a _arguments_options
    local ret=1

    if is-at-least 5.2; then
        _arguments_options=(-s -S -C)
    else
        _arguments_options=(-s -C)
    fi

    local context curcontext="$curcontext" state line
    _arguments "${_arguments_options[@]}" : \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
'-V[Print version]' \
'--version[Print version]' \
":: :_latchkey_commands" \
"*::: :->latchkey" \
&& ret=0
    case $state in
    (latchkey)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:latchkey-command-$line[1]:"
        case $line[1] in
            (serve)
_arguments "${_arguments_options[@]}" : \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(migrate)
_arguments "${_arguments_options[@]}" : \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(keys)
_arguments "${_arguments_options[@]}" : \
'-h[Print help]' \
'--help[Print help]' \
":: :_latchkey__subcmd__keys_commands" \
"*::: :->keys" \
&& ret=0

    case $state in
    (keys)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:latchkey-keys-command-$line[1]:"
        case $line[1] in
            (list)
_arguments "${_arguments_options[@]}" : \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(generate)
_arguments "${_arguments_options[@]}" : \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(rotate)
_arguments "${_arguments_options[@]}" : \
'--wait[Wait first until every verifier can know the key that will sign]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
&& ret=0
;;
(retire)
_arguments "${_arguments_options[@]}" : \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':kid -- The key, by its KID in `keys list`:_default' \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
":: :_latchkey__subcmd__keys__subcmd__help_commands" \
"*::: :->help" \
&& ret=0

    case $state in
    (help)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:latchkey-keys-help-command-$line[1]:"
        case $line[1] in
            (list)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(generate)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(rotate)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(retire)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
        esac
    ;;
esac
;;
(mail)
_arguments "${_arguments_options[@]}" : \
'-h[Print help]' \
'--help[Print help]' \
":: :_latchkey__subcmd__mail_commands" \
"*::: :->mail" \
&& ret=0

    case $state in
    (mail)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:latchkey-mail-command-$line[1]:"
        case $line[1] in
            (list)
_arguments "${_arguments_options[@]}" : \
'--state=[Only what is in this state]:STATE:((pending\:"Waits, or is on its way"
sent\:"Was handed over"
dropped\:"There was nothing to send\: nobody has the address, or a cap said no"
dead\:"Was given up"))' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
&& ret=0
;;
(retry)
_arguments "${_arguments_options[@]}" : \
'()--all[Everything that was given up or waits]' \
'-h[Print help]' \
'--help[Print help]' \
'::id -- One mail, by its id in `mail list`:_default' \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
":: :_latchkey__subcmd__mail__subcmd__help_commands" \
"*::: :->help" \
&& ret=0

    case $state in
    (help)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:latchkey-mail-help-command-$line[1]:"
        case $line[1] in
            (list)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(retry)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
        esac
    ;;
esac
;;
(user)
_arguments "${_arguments_options[@]}" : \
'-h[Print help]' \
'--help[Print help]' \
":: :_latchkey__subcmd__user_commands" \
"*::: :->user" \
&& ret=0

    case $state in
    (user)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:latchkey-user-command-$line[1]:"
        case $line[1] in
            (create)
_arguments "${_arguments_options[@]}" : \
'--email=[Where mail for the person goes, and what they sign in with]:ADDRESS:_default' \
'--username=[What they may sign in with besides]:NAME:_default' \
'--display-name=[What others are shown]:NAME:_default' \
'--locale=[The language of mails, such as en or de-AT]:TAG:_default' \
'--verified[Take the address for proved\: you know that it is the person'\''s]' \
'--password-stdin[Read the password from standard input, one line]' \
'(--password-stdin)--no-password[Set none\: the person does, with "forgot password"]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
&& ret=0
;;
(list)
_arguments "${_arguments_options[@]}" : \
'--search=[Only those whose address or username begins so, in upper or lower case]:TEXT:_default' \
'--limit=[How many]:N:_default' \
'--after=[Go on behind this id, the last one of the list before]:ID:_default' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
&& ret=0
;;
(disable)
_arguments "${_arguments_options[@]}" : \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':who -- An address, a username or an id:_default' \
&& ret=0
;;
(enable)
_arguments "${_arguments_options[@]}" : \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':who -- An address, a username or an id:_default' \
&& ret=0
;;
(sessions)
_arguments "${_arguments_options[@]}" : \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':who -- An address, a username or an id:_default' \
&& ret=0
;;
(revoke)
_arguments "${_arguments_options[@]}" : \
'()--all[Every session, and every code that was mailed; works without Redis too]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':who -- An address, a username or an id:_default' \
'::session -- The session, by its id in `user sessions`:_default' \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
":: :_latchkey__subcmd__user__subcmd__help_commands" \
"*::: :->help" \
&& ret=0

    case $state in
    (help)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:latchkey-user-help-command-$line[1]:"
        case $line[1] in
            (create)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(list)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(disable)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(enable)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(sessions)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(revoke)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
        esac
    ;;
esac
;;
(config)
_arguments "${_arguments_options[@]}" : \
'-h[Print help]' \
'--help[Print help]' \
":: :_latchkey__subcmd__config_commands" \
"*::: :->config" \
&& ret=0

    case $state in
    (config)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:latchkey-config-command-$line[1]:"
        case $line[1] in
            (check)
_arguments "${_arguments_options[@]}" : \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
":: :_latchkey__subcmd__config__subcmd__help_commands" \
"*::: :->help" \
&& ret=0

    case $state in
    (help)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:latchkey-config-help-command-$line[1]:"
        case $line[1] in
            (check)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
        esac
    ;;
esac
;;
(doctor)
_arguments "${_arguments_options[@]}" : \
'*--explain-address=[Check nothing; print the client address that these header lines ("Name\: value") lead to, and why]::HEADER:_default' \
'--peer=[The other end of the socket]:ADDRESS:_default' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(health)
_arguments "${_arguments_options[@]}" : \
'--ready[Ask whether database, sessions and mail can be reached too (/health/ready)\: for people, not for probes, since a database that stumbles would have every node restarted]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(hash)
_arguments "${_arguments_options[@]}" : \
'-h[Print help]' \
'--help[Print help]' \
":: :_latchkey__subcmd__hash_commands" \
"*::: :->hash" \
&& ret=0

    case $state in
    (hash)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:latchkey-hash-command-$line[1]:"
        case $line[1] in
            (calibrate)
_arguments "${_arguments_options[@]}" : \
'--target=[How long a hash may take, from 5ms to 1s]:TARGET:_default' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
":: :_latchkey__subcmd__hash__subcmd__help_commands" \
"*::: :->help" \
&& ret=0

    case $state in
    (help)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:latchkey-hash-help-command-$line[1]:"
        case $line[1] in
            (calibrate)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
        esac
    ;;
esac
;;
(backup)
_arguments "${_arguments_options[@]}" : \
'--force[Replace the file if it is there]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':file -- Where to; readable for its owner alone:_files' \
&& ret=0
;;
(restore)
_arguments "${_arguments_options[@]}" : \
'()--after-pg-restore[PostgreSQL\: the database of DATABASE_URL was restored by its own tools; let nothing that was revoked live again]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
'::file -- What `latchkey backup` made:_files' \
&& ret=0
;;
(completions)
_arguments "${_arguments_options[@]}" : \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
':shell -- Which shell:((bash\:"Bash"
zsh\:"Zsh"
fish\:"Fish"))' \
&& ret=0
;;
(openapi)
_arguments "${_arguments_options[@]}" : \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
":: :_latchkey__subcmd__help_commands" \
"*::: :->help" \
&& ret=0

    case $state in
    (help)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:latchkey-help-command-$line[1]:"
        case $line[1] in
            (serve)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(migrate)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(keys)
_arguments "${_arguments_options[@]}" : \
":: :_latchkey__subcmd__help__subcmd__keys_commands" \
"*::: :->keys" \
&& ret=0

    case $state in
    (keys)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:latchkey-help-keys-command-$line[1]:"
        case $line[1] in
            (list)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(generate)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(rotate)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(retire)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
(mail)
_arguments "${_arguments_options[@]}" : \
":: :_latchkey__subcmd__help__subcmd__mail_commands" \
"*::: :->mail" \
&& ret=0

    case $state in
    (mail)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:latchkey-help-mail-command-$line[1]:"
        case $line[1] in
            (list)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(retry)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
(user)
_arguments "${_arguments_options[@]}" : \
":: :_latchkey__subcmd__help__subcmd__user_commands" \
"*::: :->user" \
&& ret=0

    case $state in
    (user)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:latchkey-help-user-command-$line[1]:"
        case $line[1] in
            (create)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(list)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(disable)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(enable)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(sessions)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(revoke)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
(config)
_arguments "${_arguments_options[@]}" : \
":: :_latchkey__subcmd__help__subcmd__config_commands" \
"*::: :->config" \
&& ret=0

    case $state in
    (config)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:latchkey-help-config-command-$line[1]:"
        case $line[1] in
            (check)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
(doctor)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(health)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(hash)
_arguments "${_arguments_options[@]}" : \
":: :_latchkey__subcmd__help__subcmd__hash_commands" \
"*::: :->hash" \
&& ret=0

    case $state in
    (hash)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:latchkey-help-hash-command-$line[1]:"
        case $line[1] in
            (calibrate)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
(backup)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(restore)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(completions)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(openapi)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
        esac
    ;;
esac
}

(( $+functions[_latchkey_commands] )) ||
_latchkey_commands() {
    local commands; commands=(
'serve:Run the server (the default)' \
'migrate:Bring the database schema up to date and exit' \
'keys:Signing keys and the server secret' \
'mail:Mails that wait, went, or were given up' \
'user:People\: make accounts, find, disable and enable them' \
'config:The settings' \
'doctor:Check everything that a server needs, and say how to mend what is wrong' \
'health:Ask the server on this machine whether it serves; exit code 0 or 1, within three seconds' \
'hash:The cost of password hashes' \
'backup:Copy the embedded database into a file, while a server uses it' \
'restore:Put a backup into the place of the database; the server must not run' \
'completions:Print the completions of a shell' \
'openapi:Print the API document (OpenAPI 3.1)' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'latchkey commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__backup_commands] )) ||
_latchkey__subcmd__backup_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey backup commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__completions_commands] )) ||
_latchkey__subcmd__completions_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey completions commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__config_commands] )) ||
_latchkey__subcmd__config_commands() {
    local commands; commands=(
'check:Show the effective settings, secrets redacted, and every fault' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'latchkey config commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__config__subcmd__check_commands] )) ||
_latchkey__subcmd__config__subcmd__check_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey config check commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__config__subcmd__help_commands] )) ||
_latchkey__subcmd__config__subcmd__help_commands() {
    local commands; commands=(
'check:Show the effective settings, secrets redacted, and every fault' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'latchkey config help commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__config__subcmd__help__subcmd__check_commands] )) ||
_latchkey__subcmd__config__subcmd__help__subcmd__check_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey config help check commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__config__subcmd__help__subcmd__help_commands] )) ||
_latchkey__subcmd__config__subcmd__help__subcmd__help_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey config help help commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__doctor_commands] )) ||
_latchkey__subcmd__doctor_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey doctor commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__hash_commands] )) ||
_latchkey__subcmd__hash_commands() {
    local commands; commands=(
'calibrate:Measure hashes on this machine, and print the LATCHKEY_ARGON2_ settings that come nearest to a time, but below it' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'latchkey hash commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__hash__subcmd__calibrate_commands] )) ||
_latchkey__subcmd__hash__subcmd__calibrate_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey hash calibrate commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__hash__subcmd__help_commands] )) ||
_latchkey__subcmd__hash__subcmd__help_commands() {
    local commands; commands=(
'calibrate:Measure hashes on this machine, and print the LATCHKEY_ARGON2_ settings that come nearest to a time, but below it' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'latchkey hash help commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__hash__subcmd__help__subcmd__calibrate_commands] )) ||
_latchkey__subcmd__hash__subcmd__help__subcmd__calibrate_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey hash help calibrate commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__hash__subcmd__help__subcmd__help_commands] )) ||
_latchkey__subcmd__hash__subcmd__help__subcmd__help_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey hash help help commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__health_commands] )) ||
_latchkey__subcmd__health_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey health commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__help_commands] )) ||
_latchkey__subcmd__help_commands() {
    local commands; commands=(
'serve:Run the server (the default)' \
'migrate:Bring the database schema up to date and exit' \
'keys:Signing keys and the server secret' \
'mail:Mails that wait, went, or were given up' \
'user:People\: make accounts, find, disable and enable them' \
'config:The settings' \
'doctor:Check everything that a server needs, and say how to mend what is wrong' \
'health:Ask the server on this machine whether it serves; exit code 0 or 1, within three seconds' \
'hash:The cost of password hashes' \
'backup:Copy the embedded database into a file, while a server uses it' \
'restore:Put a backup into the place of the database; the server must not run' \
'completions:Print the completions of a shell' \
'openapi:Print the API document (OpenAPI 3.1)' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'latchkey help commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__help__subcmd__backup_commands] )) ||
_latchkey__subcmd__help__subcmd__backup_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey help backup commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__help__subcmd__completions_commands] )) ||
_latchkey__subcmd__help__subcmd__completions_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey help completions commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__help__subcmd__config_commands] )) ||
_latchkey__subcmd__help__subcmd__config_commands() {
    local commands; commands=(
'check:Show the effective settings, secrets redacted, and every fault' \
    )
    _describe -t commands 'latchkey help config commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__help__subcmd__config__subcmd__check_commands] )) ||
_latchkey__subcmd__help__subcmd__config__subcmd__check_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey help config check commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__help__subcmd__doctor_commands] )) ||
_latchkey__subcmd__help__subcmd__doctor_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey help doctor commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__help__subcmd__hash_commands] )) ||
_latchkey__subcmd__help__subcmd__hash_commands() {
    local commands; commands=(
'calibrate:Measure hashes on this machine, and print the LATCHKEY_ARGON2_ settings that come nearest to a time, but below it' \
    )
    _describe -t commands 'latchkey help hash commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__help__subcmd__hash__subcmd__calibrate_commands] )) ||
_latchkey__subcmd__help__subcmd__hash__subcmd__calibrate_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey help hash calibrate commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__help__subcmd__health_commands] )) ||
_latchkey__subcmd__help__subcmd__health_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey help health commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__help__subcmd__help_commands] )) ||
_latchkey__subcmd__help__subcmd__help_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey help help commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__help__subcmd__keys_commands] )) ||
_latchkey__subcmd__help__subcmd__keys_commands() {
    local commands; commands=(
'list:List the key ring' \
'generate:Make whatever is missing\: the server secret, an active and a next key' \
'rotate:Let the next key sign, and publish a new next one; what the present one signed stays good' \
'retire:Refuse what a key signed, on every server within seconds\: for a key that leaked' \
    )
    _describe -t commands 'latchkey help keys commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__help__subcmd__keys__subcmd__generate_commands] )) ||
_latchkey__subcmd__help__subcmd__keys__subcmd__generate_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey help keys generate commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__help__subcmd__keys__subcmd__list_commands] )) ||
_latchkey__subcmd__help__subcmd__keys__subcmd__list_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey help keys list commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__help__subcmd__keys__subcmd__retire_commands] )) ||
_latchkey__subcmd__help__subcmd__keys__subcmd__retire_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey help keys retire commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__help__subcmd__keys__subcmd__rotate_commands] )) ||
_latchkey__subcmd__help__subcmd__keys__subcmd__rotate_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey help keys rotate commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__help__subcmd__mail_commands] )) ||
_latchkey__subcmd__help__subcmd__mail_commands() {
    local commands; commands=(
'list:List what lies in the outbox, the newest first; without --state everything that is not done' \
'retry:Try again what was given up or waits; a running server does it within seconds' \
    )
    _describe -t commands 'latchkey help mail commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__help__subcmd__mail__subcmd__list_commands] )) ||
_latchkey__subcmd__help__subcmd__mail__subcmd__list_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey help mail list commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__help__subcmd__mail__subcmd__retry_commands] )) ||
_latchkey__subcmd__help__subcmd__mail__subcmd__retry_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey help mail retry commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__help__subcmd__migrate_commands] )) ||
_latchkey__subcmd__help__subcmd__migrate_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey help migrate commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__help__subcmd__openapi_commands] )) ||
_latchkey__subcmd__help__subcmd__openapi_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey help openapi commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__help__subcmd__restore_commands] )) ||
_latchkey__subcmd__help__subcmd__restore_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey help restore commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__help__subcmd__serve_commands] )) ||
_latchkey__subcmd__help__subcmd__serve_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey help serve commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__help__subcmd__user_commands] )) ||
_latchkey__subcmd__help__subcmd__user_commands() {
    local commands; commands=(
'create:Make an account' \
'list:List people, the newest first' \
'disable:Keep somebody out\: every session ends at once, on every node, and nobody signs in as that person' \
'enable:Let somebody in again who was disabled' \
'sessions:List what somebody is signed in with, the last used first' \
'revoke:End one session of somebody, or all of them, at once and on every node' \
    )
    _describe -t commands 'latchkey help user commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__help__subcmd__user__subcmd__create_commands] )) ||
_latchkey__subcmd__help__subcmd__user__subcmd__create_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey help user create commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__help__subcmd__user__subcmd__disable_commands] )) ||
_latchkey__subcmd__help__subcmd__user__subcmd__disable_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey help user disable commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__help__subcmd__user__subcmd__enable_commands] )) ||
_latchkey__subcmd__help__subcmd__user__subcmd__enable_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey help user enable commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__help__subcmd__user__subcmd__list_commands] )) ||
_latchkey__subcmd__help__subcmd__user__subcmd__list_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey help user list commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__help__subcmd__user__subcmd__revoke_commands] )) ||
_latchkey__subcmd__help__subcmd__user__subcmd__revoke_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey help user revoke commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__help__subcmd__user__subcmd__sessions_commands] )) ||
_latchkey__subcmd__help__subcmd__user__subcmd__sessions_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey help user sessions commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__keys_commands] )) ||
_latchkey__subcmd__keys_commands() {
    local commands; commands=(
'list:List the key ring' \
'generate:Make whatever is missing\: the server secret, an active and a next key' \
'rotate:Let the next key sign, and publish a new next one; what the present one signed stays good' \
'retire:Refuse what a key signed, on every server within seconds\: for a key that leaked' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'latchkey keys commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__keys__subcmd__generate_commands] )) ||
_latchkey__subcmd__keys__subcmd__generate_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey keys generate commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__keys__subcmd__help_commands] )) ||
_latchkey__subcmd__keys__subcmd__help_commands() {
    local commands; commands=(
'list:List the key ring' \
'generate:Make whatever is missing\: the server secret, an active and a next key' \
'rotate:Let the next key sign, and publish a new next one; what the present one signed stays good' \
'retire:Refuse what a key signed, on every server within seconds\: for a key that leaked' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'latchkey keys help commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__keys__subcmd__help__subcmd__generate_commands] )) ||
_latchkey__subcmd__keys__subcmd__help__subcmd__generate_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey keys help generate commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__keys__subcmd__help__subcmd__help_commands] )) ||
_latchkey__subcmd__keys__subcmd__help__subcmd__help_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey keys help help commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__keys__subcmd__help__subcmd__list_commands] )) ||
_latchkey__subcmd__keys__subcmd__help__subcmd__list_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey keys help list commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__keys__subcmd__help__subcmd__retire_commands] )) ||
_latchkey__subcmd__keys__subcmd__help__subcmd__retire_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey keys help retire commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__keys__subcmd__help__subcmd__rotate_commands] )) ||
_latchkey__subcmd__keys__subcmd__help__subcmd__rotate_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey keys help rotate commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__keys__subcmd__list_commands] )) ||
_latchkey__subcmd__keys__subcmd__list_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey keys list commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__keys__subcmd__retire_commands] )) ||
_latchkey__subcmd__keys__subcmd__retire_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey keys retire commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__keys__subcmd__rotate_commands] )) ||
_latchkey__subcmd__keys__subcmd__rotate_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey keys rotate commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__mail_commands] )) ||
_latchkey__subcmd__mail_commands() {
    local commands; commands=(
'list:List what lies in the outbox, the newest first; without --state everything that is not done' \
'retry:Try again what was given up or waits; a running server does it within seconds' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'latchkey mail commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__mail__subcmd__help_commands] )) ||
_latchkey__subcmd__mail__subcmd__help_commands() {
    local commands; commands=(
'list:List what lies in the outbox, the newest first; without --state everything that is not done' \
'retry:Try again what was given up or waits; a running server does it within seconds' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'latchkey mail help commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__mail__subcmd__help__subcmd__help_commands] )) ||
_latchkey__subcmd__mail__subcmd__help__subcmd__help_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey mail help help commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__mail__subcmd__help__subcmd__list_commands] )) ||
_latchkey__subcmd__mail__subcmd__help__subcmd__list_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey mail help list commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__mail__subcmd__help__subcmd__retry_commands] )) ||
_latchkey__subcmd__mail__subcmd__help__subcmd__retry_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey mail help retry commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__mail__subcmd__list_commands] )) ||
_latchkey__subcmd__mail__subcmd__list_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey mail list commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__mail__subcmd__retry_commands] )) ||
_latchkey__subcmd__mail__subcmd__retry_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey mail retry commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__migrate_commands] )) ||
_latchkey__subcmd__migrate_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey migrate commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__openapi_commands] )) ||
_latchkey__subcmd__openapi_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey openapi commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__restore_commands] )) ||
_latchkey__subcmd__restore_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey restore commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__serve_commands] )) ||
_latchkey__subcmd__serve_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey serve commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__user_commands] )) ||
_latchkey__subcmd__user_commands() {
    local commands; commands=(
'create:Make an account' \
'list:List people, the newest first' \
'disable:Keep somebody out\: every session ends at once, on every node, and nobody signs in as that person' \
'enable:Let somebody in again who was disabled' \
'sessions:List what somebody is signed in with, the last used first' \
'revoke:End one session of somebody, or all of them, at once and on every node' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'latchkey user commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__user__subcmd__create_commands] )) ||
_latchkey__subcmd__user__subcmd__create_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey user create commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__user__subcmd__disable_commands] )) ||
_latchkey__subcmd__user__subcmd__disable_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey user disable commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__user__subcmd__enable_commands] )) ||
_latchkey__subcmd__user__subcmd__enable_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey user enable commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__user__subcmd__help_commands] )) ||
_latchkey__subcmd__user__subcmd__help_commands() {
    local commands; commands=(
'create:Make an account' \
'list:List people, the newest first' \
'disable:Keep somebody out\: every session ends at once, on every node, and nobody signs in as that person' \
'enable:Let somebody in again who was disabled' \
'sessions:List what somebody is signed in with, the last used first' \
'revoke:End one session of somebody, or all of them, at once and on every node' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'latchkey user help commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__user__subcmd__help__subcmd__create_commands] )) ||
_latchkey__subcmd__user__subcmd__help__subcmd__create_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey user help create commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__user__subcmd__help__subcmd__disable_commands] )) ||
_latchkey__subcmd__user__subcmd__help__subcmd__disable_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey user help disable commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__user__subcmd__help__subcmd__enable_commands] )) ||
_latchkey__subcmd__user__subcmd__help__subcmd__enable_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey user help enable commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__user__subcmd__help__subcmd__help_commands] )) ||
_latchkey__subcmd__user__subcmd__help__subcmd__help_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey user help help commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__user__subcmd__help__subcmd__list_commands] )) ||
_latchkey__subcmd__user__subcmd__help__subcmd__list_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey user help list commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__user__subcmd__help__subcmd__revoke_commands] )) ||
_latchkey__subcmd__user__subcmd__help__subcmd__revoke_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey user help revoke commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__user__subcmd__help__subcmd__sessions_commands] )) ||
_latchkey__subcmd__user__subcmd__help__subcmd__sessions_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey user help sessions commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__user__subcmd__list_commands] )) ||
_latchkey__subcmd__user__subcmd__list_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey user list commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__user__subcmd__revoke_commands] )) ||
_latchkey__subcmd__user__subcmd__revoke_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey user revoke commands' commands "$@"
}
(( $+functions[_latchkey__subcmd__user__subcmd__sessions_commands] )) ||
_latchkey__subcmd__user__subcmd__sessions_commands() {
    local commands; commands=()
    _describe -t commands 'latchkey user sessions commands' commands "$@"
}

if [ "$funcstack[1]" = "_latchkey" ]; then
    _latchkey "$@"
else
    compdef _latchkey latchkey
fi
