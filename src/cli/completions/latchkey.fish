# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_latchkey_global_optspecs
    string join \n h/help V/version
end

function __fish_latchkey_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_latchkey_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_latchkey_using_subcommand
    set -l cmd (__fish_latchkey_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c latchkey -n "__fish_latchkey_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c latchkey -n "__fish_latchkey_needs_command" -s V -l version -d 'Print version'
complete -c latchkey -n "__fish_latchkey_needs_command" -f -a "serve" -d 'Run the server (the default)'
complete -c latchkey -n "__fish_latchkey_needs_command" -f -a "migrate" -d 'Bring the database schema up to date and exit'
complete -c latchkey -n "__fish_latchkey_needs_command" -f -a "keys" -d 'Signing keys and the server secret'
complete -c latchkey -n "__fish_latchkey_needs_command" -f -a "mail" -d 'Mails that wait, went, or were given up'
complete -c latchkey -n "__fish_latchkey_needs_command" -f -a "user" -d 'People: make accounts, find, disable and enable them'
complete -c latchkey -n "__fish_latchkey_needs_command" -f -a "config" -d 'The settings'
complete -c latchkey -n "__fish_latchkey_needs_command" -f -a "doctor" -d 'Check everything that a server needs, and say how to mend what is wrong'
complete -c latchkey -n "__fish_latchkey_needs_command" -f -a "health" -d 'Ask the server on this machine whether it serves; exit code 0 or 1, within three seconds'
complete -c latchkey -n "__fish_latchkey_needs_command" -f -a "hash" -d 'The cost of password hashes'
complete -c latchkey -n "__fish_latchkey_needs_command" -f -a "backup" -d 'Copy the embedded database into a file, while a server uses it'
complete -c latchkey -n "__fish_latchkey_needs_command" -f -a "restore" -d 'Put a backup into the place of the database; the server must not run'
complete -c latchkey -n "__fish_latchkey_needs_command" -f -a "completions" -d 'Print the completions of a shell'
complete -c latchkey -n "__fish_latchkey_needs_command" -f -a "openapi" -d 'Print the API document (OpenAPI 3.1)'
complete -c latchkey -n "__fish_latchkey_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c latchkey -n "__fish_latchkey_using_subcommand serve" -s h -l help -d 'Print help'
complete -c latchkey -n "__fish_latchkey_using_subcommand migrate" -s h -l help -d 'Print help'
complete -c latchkey -n "__fish_latchkey_using_subcommand keys; and not __fish_seen_subcommand_from list generate rotate retire help" -s h -l help -d 'Print help'
complete -c latchkey -n "__fish_latchkey_using_subcommand keys; and not __fish_seen_subcommand_from list generate rotate retire help" -f -a "list" -d 'List the key ring'
complete -c latchkey -n "__fish_latchkey_using_subcommand keys; and not __fish_seen_subcommand_from list generate rotate retire help" -f -a "generate" -d 'Make whatever is missing: the server secret, an active and a next key'
complete -c latchkey -n "__fish_latchkey_using_subcommand keys; and not __fish_seen_subcommand_from list generate rotate retire help" -f -a "rotate" -d 'Let the next key sign, and publish a new next one; what the present one signed stays good'
complete -c latchkey -n "__fish_latchkey_using_subcommand keys; and not __fish_seen_subcommand_from list generate rotate retire help" -f -a "retire" -d 'Refuse what a key signed, on every server within seconds: for a key that leaked'
complete -c latchkey -n "__fish_latchkey_using_subcommand keys; and not __fish_seen_subcommand_from list generate rotate retire help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c latchkey -n "__fish_latchkey_using_subcommand keys; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c latchkey -n "__fish_latchkey_using_subcommand keys; and __fish_seen_subcommand_from generate" -s h -l help -d 'Print help'
complete -c latchkey -n "__fish_latchkey_using_subcommand keys; and __fish_seen_subcommand_from rotate" -l wait -d 'Wait first until every verifier can know the key that will sign'
complete -c latchkey -n "__fish_latchkey_using_subcommand keys; and __fish_seen_subcommand_from rotate" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c latchkey -n "__fish_latchkey_using_subcommand keys; and __fish_seen_subcommand_from retire" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c latchkey -n "__fish_latchkey_using_subcommand keys; and __fish_seen_subcommand_from help" -f -a "list" -d 'List the key ring'
complete -c latchkey -n "__fish_latchkey_using_subcommand keys; and __fish_seen_subcommand_from help" -f -a "generate" -d 'Make whatever is missing: the server secret, an active and a next key'
complete -c latchkey -n "__fish_latchkey_using_subcommand keys; and __fish_seen_subcommand_from help" -f -a "rotate" -d 'Let the next key sign, and publish a new next one; what the present one signed stays good'
complete -c latchkey -n "__fish_latchkey_using_subcommand keys; and __fish_seen_subcommand_from help" -f -a "retire" -d 'Refuse what a key signed, on every server within seconds: for a key that leaked'
complete -c latchkey -n "__fish_latchkey_using_subcommand keys; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c latchkey -n "__fish_latchkey_using_subcommand mail; and not __fish_seen_subcommand_from list retry help" -s h -l help -d 'Print help'
complete -c latchkey -n "__fish_latchkey_using_subcommand mail; and not __fish_seen_subcommand_from list retry help" -f -a "list" -d 'List what lies in the outbox, the newest first; without --state everything that is not done'
complete -c latchkey -n "__fish_latchkey_using_subcommand mail; and not __fish_seen_subcommand_from list retry help" -f -a "retry" -d 'Try again what was given up or waits; a running server does it within seconds'
complete -c latchkey -n "__fish_latchkey_using_subcommand mail; and not __fish_seen_subcommand_from list retry help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c latchkey -n "__fish_latchkey_using_subcommand mail; and __fish_seen_subcommand_from list" -l state -d 'Only what is in this state' -r -f -a "pending\t'Waits, or is on its way'
sent\t'Was handed over'
dropped\t'There was nothing to send: nobody has the address, or a cap said no'
dead\t'Was given up'"
complete -c latchkey -n "__fish_latchkey_using_subcommand mail; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c latchkey -n "__fish_latchkey_using_subcommand mail; and __fish_seen_subcommand_from retry" -l all -d 'Everything that was given up or waits'
complete -c latchkey -n "__fish_latchkey_using_subcommand mail; and __fish_seen_subcommand_from retry" -s h -l help -d 'Print help'
complete -c latchkey -n "__fish_latchkey_using_subcommand mail; and __fish_seen_subcommand_from help" -f -a "list" -d 'List what lies in the outbox, the newest first; without --state everything that is not done'
complete -c latchkey -n "__fish_latchkey_using_subcommand mail; and __fish_seen_subcommand_from help" -f -a "retry" -d 'Try again what was given up or waits; a running server does it within seconds'
complete -c latchkey -n "__fish_latchkey_using_subcommand mail; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c latchkey -n "__fish_latchkey_using_subcommand user; and not __fish_seen_subcommand_from create list disable enable sessions revoke help" -s h -l help -d 'Print help'
complete -c latchkey -n "__fish_latchkey_using_subcommand user; and not __fish_seen_subcommand_from create list disable enable sessions revoke help" -f -a "create" -d 'Make an account'
complete -c latchkey -n "__fish_latchkey_using_subcommand user; and not __fish_seen_subcommand_from create list disable enable sessions revoke help" -f -a "list" -d 'List people, the newest first'
complete -c latchkey -n "__fish_latchkey_using_subcommand user; and not __fish_seen_subcommand_from create list disable enable sessions revoke help" -f -a "disable" -d 'Keep somebody out: every session ends at once, on every node, and nobody signs in as that person'
complete -c latchkey -n "__fish_latchkey_using_subcommand user; and not __fish_seen_subcommand_from create list disable enable sessions revoke help" -f -a "enable" -d 'Let somebody in again who was disabled'
complete -c latchkey -n "__fish_latchkey_using_subcommand user; and not __fish_seen_subcommand_from create list disable enable sessions revoke help" -f -a "sessions" -d 'List what somebody is signed in with, the last used first'
complete -c latchkey -n "__fish_latchkey_using_subcommand user; and not __fish_seen_subcommand_from create list disable enable sessions revoke help" -f -a "revoke" -d 'End one session of somebody, or all of them, at once and on every node'
complete -c latchkey -n "__fish_latchkey_using_subcommand user; and not __fish_seen_subcommand_from create list disable enable sessions revoke help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c latchkey -n "__fish_latchkey_using_subcommand user; and __fish_seen_subcommand_from create" -l email -d 'Where mail for the person goes, and what they sign in with' -r
complete -c latchkey -n "__fish_latchkey_using_subcommand user; and __fish_seen_subcommand_from create" -l username -d 'What they may sign in with besides' -r
complete -c latchkey -n "__fish_latchkey_using_subcommand user; and __fish_seen_subcommand_from create" -l display-name -d 'What others are shown' -r
complete -c latchkey -n "__fish_latchkey_using_subcommand user; and __fish_seen_subcommand_from create" -l locale -d 'The language of mails, such as en or de-AT' -r
complete -c latchkey -n "__fish_latchkey_using_subcommand user; and __fish_seen_subcommand_from create" -l verified -d 'Take the address for proved: you know that it is the person\'s'
complete -c latchkey -n "__fish_latchkey_using_subcommand user; and __fish_seen_subcommand_from create" -l password-stdin -d 'Read the password from standard input, one line'
complete -c latchkey -n "__fish_latchkey_using_subcommand user; and __fish_seen_subcommand_from create" -l no-password -d 'Set none: the person does, with "forgot password"'
complete -c latchkey -n "__fish_latchkey_using_subcommand user; and __fish_seen_subcommand_from create" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c latchkey -n "__fish_latchkey_using_subcommand user; and __fish_seen_subcommand_from list" -l search -d 'Only those whose address or username begins so, in upper or lower case' -r
complete -c latchkey -n "__fish_latchkey_using_subcommand user; and __fish_seen_subcommand_from list" -l limit -d 'How many' -r
complete -c latchkey -n "__fish_latchkey_using_subcommand user; and __fish_seen_subcommand_from list" -l after -d 'Go on behind this id, the last one of the list before' -r
complete -c latchkey -n "__fish_latchkey_using_subcommand user; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c latchkey -n "__fish_latchkey_using_subcommand user; and __fish_seen_subcommand_from disable" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c latchkey -n "__fish_latchkey_using_subcommand user; and __fish_seen_subcommand_from enable" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c latchkey -n "__fish_latchkey_using_subcommand user; and __fish_seen_subcommand_from sessions" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c latchkey -n "__fish_latchkey_using_subcommand user; and __fish_seen_subcommand_from revoke" -l all -d 'Every session, and every code that was mailed; works without Redis too'
complete -c latchkey -n "__fish_latchkey_using_subcommand user; and __fish_seen_subcommand_from revoke" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c latchkey -n "__fish_latchkey_using_subcommand user; and __fish_seen_subcommand_from help" -f -a "create" -d 'Make an account'
complete -c latchkey -n "__fish_latchkey_using_subcommand user; and __fish_seen_subcommand_from help" -f -a "list" -d 'List people, the newest first'
complete -c latchkey -n "__fish_latchkey_using_subcommand user; and __fish_seen_subcommand_from help" -f -a "disable" -d 'Keep somebody out: every session ends at once, on every node, and nobody signs in as that person'
complete -c latchkey -n "__fish_latchkey_using_subcommand user; and __fish_seen_subcommand_from help" -f -a "enable" -d 'Let somebody in again who was disabled'
complete -c latchkey -n "__fish_latchkey_using_subcommand user; and __fish_seen_subcommand_from help" -f -a "sessions" -d 'List what somebody is signed in with, the last used first'
complete -c latchkey -n "__fish_latchkey_using_subcommand user; and __fish_seen_subcommand_from help" -f -a "revoke" -d 'End one session of somebody, or all of them, at once and on every node'
complete -c latchkey -n "__fish_latchkey_using_subcommand user; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c latchkey -n "__fish_latchkey_using_subcommand config; and not __fish_seen_subcommand_from check help" -s h -l help -d 'Print help'
complete -c latchkey -n "__fish_latchkey_using_subcommand config; and not __fish_seen_subcommand_from check help" -f -a "check" -d 'Show the effective settings, secrets redacted, and every fault'
complete -c latchkey -n "__fish_latchkey_using_subcommand config; and not __fish_seen_subcommand_from check help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c latchkey -n "__fish_latchkey_using_subcommand config; and __fish_seen_subcommand_from check" -s h -l help -d 'Print help'
complete -c latchkey -n "__fish_latchkey_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "check" -d 'Show the effective settings, secrets redacted, and every fault'
complete -c latchkey -n "__fish_latchkey_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c latchkey -n "__fish_latchkey_using_subcommand doctor" -l explain-address -d 'Check nothing; print the client address that these header lines ("Name: value") lead to, and why' -r
complete -c latchkey -n "__fish_latchkey_using_subcommand doctor" -l peer -d 'The other end of the socket' -r
complete -c latchkey -n "__fish_latchkey_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c latchkey -n "__fish_latchkey_using_subcommand health" -l ready -d 'Ask whether database, sessions and mail can be reached too (/health/ready): for people, not for probes, since a database that stumbles would have every node restarted'
complete -c latchkey -n "__fish_latchkey_using_subcommand health" -s h -l help -d 'Print help'
complete -c latchkey -n "__fish_latchkey_using_subcommand hash; and not __fish_seen_subcommand_from calibrate help" -s h -l help -d 'Print help'
complete -c latchkey -n "__fish_latchkey_using_subcommand hash; and not __fish_seen_subcommand_from calibrate help" -f -a "calibrate" -d 'Measure hashes on this machine, and print the LATCHKEY_ARGON2_ settings that come nearest to a time, but below it'
complete -c latchkey -n "__fish_latchkey_using_subcommand hash; and not __fish_seen_subcommand_from calibrate help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c latchkey -n "__fish_latchkey_using_subcommand hash; and __fish_seen_subcommand_from calibrate" -l target -d 'How long a hash may take, from 5ms to 1s' -r
complete -c latchkey -n "__fish_latchkey_using_subcommand hash; and __fish_seen_subcommand_from calibrate" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c latchkey -n "__fish_latchkey_using_subcommand hash; and __fish_seen_subcommand_from help" -f -a "calibrate" -d 'Measure hashes on this machine, and print the LATCHKEY_ARGON2_ settings that come nearest to a time, but below it'
complete -c latchkey -n "__fish_latchkey_using_subcommand hash; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c latchkey -n "__fish_latchkey_using_subcommand backup" -l force -d 'Replace the file if it is there'
complete -c latchkey -n "__fish_latchkey_using_subcommand backup" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c latchkey -n "__fish_latchkey_using_subcommand restore" -l after-pg-restore -d 'PostgreSQL: the database of DATABASE_URL was restored by its own tools; let nothing that was revoked live again'
complete -c latchkey -n "__fish_latchkey_using_subcommand restore" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c latchkey -n "__fish_latchkey_using_subcommand completions" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c latchkey -n "__fish_latchkey_using_subcommand openapi" -s h -l help -d 'Print help'
complete -c latchkey -n "__fish_latchkey_using_subcommand help; and not __fish_seen_subcommand_from serve migrate keys mail user config doctor health hash backup restore completions openapi help" -f -a "serve" -d 'Run the server (the default)'
complete -c latchkey -n "__fish_latchkey_using_subcommand help; and not __fish_seen_subcommand_from serve migrate keys mail user config doctor health hash backup restore completions openapi help" -f -a "migrate" -d 'Bring the database schema up to date and exit'
complete -c latchkey -n "__fish_latchkey_using_subcommand help; and not __fish_seen_subcommand_from serve migrate keys mail user config doctor health hash backup restore completions openapi help" -f -a "keys" -d 'Signing keys and the server secret'
complete -c latchkey -n "__fish_latchkey_using_subcommand help; and not __fish_seen_subcommand_from serve migrate keys mail user config doctor health hash backup restore completions openapi help" -f -a "mail" -d 'Mails that wait, went, or were given up'
complete -c latchkey -n "__fish_latchkey_using_subcommand help; and not __fish_seen_subcommand_from serve migrate keys mail user config doctor health hash backup restore completions openapi help" -f -a "user" -d 'People: make accounts, find, disable and enable them'
complete -c latchkey -n "__fish_latchkey_using_subcommand help; and not __fish_seen_subcommand_from serve migrate keys mail user config doctor health hash backup restore completions openapi help" -f -a "config" -d 'The settings'
complete -c latchkey -n "__fish_latchkey_using_subcommand help; and not __fish_seen_subcommand_from serve migrate keys mail user config doctor health hash backup restore completions openapi help" -f -a "doctor" -d 'Check everything that a server needs, and say how to mend what is wrong'
complete -c latchkey -n "__fish_latchkey_using_subcommand help; and not __fish_seen_subcommand_from serve migrate keys mail user config doctor health hash backup restore completions openapi help" -f -a "health" -d 'Ask the server on this machine whether it serves; exit code 0 or 1, within three seconds'
complete -c latchkey -n "__fish_latchkey_using_subcommand help; and not __fish_seen_subcommand_from serve migrate keys mail user config doctor health hash backup restore completions openapi help" -f -a "hash" -d 'The cost of password hashes'
complete -c latchkey -n "__fish_latchkey_using_subcommand help; and not __fish_seen_subcommand_from serve migrate keys mail user config doctor health hash backup restore completions openapi help" -f -a "backup" -d 'Copy the embedded database into a file, while a server uses it'
complete -c latchkey -n "__fish_latchkey_using_subcommand help; and not __fish_seen_subcommand_from serve migrate keys mail user config doctor health hash backup restore completions openapi help" -f -a "restore" -d 'Put a backup into the place of the database; the server must not run'
complete -c latchkey -n "__fish_latchkey_using_subcommand help; and not __fish_seen_subcommand_from serve migrate keys mail user config doctor health hash backup restore completions openapi help" -f -a "completions" -d 'Print the completions of a shell'
complete -c latchkey -n "__fish_latchkey_using_subcommand help; and not __fish_seen_subcommand_from serve migrate keys mail user config doctor health hash backup restore completions openapi help" -f -a "openapi" -d 'Print the API document (OpenAPI 3.1)'
complete -c latchkey -n "__fish_latchkey_using_subcommand help; and not __fish_seen_subcommand_from serve migrate keys mail user config doctor health hash backup restore completions openapi help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c latchkey -n "__fish_latchkey_using_subcommand help; and __fish_seen_subcommand_from keys" -f -a "list" -d 'List the key ring'
complete -c latchkey -n "__fish_latchkey_using_subcommand help; and __fish_seen_subcommand_from keys" -f -a "generate" -d 'Make whatever is missing: the server secret, an active and a next key'
complete -c latchkey -n "__fish_latchkey_using_subcommand help; and __fish_seen_subcommand_from keys" -f -a "rotate" -d 'Let the next key sign, and publish a new next one; what the present one signed stays good'
complete -c latchkey -n "__fish_latchkey_using_subcommand help; and __fish_seen_subcommand_from keys" -f -a "retire" -d 'Refuse what a key signed, on every server within seconds: for a key that leaked'
complete -c latchkey -n "__fish_latchkey_using_subcommand help; and __fish_seen_subcommand_from mail" -f -a "list" -d 'List what lies in the outbox, the newest first; without --state everything that is not done'
complete -c latchkey -n "__fish_latchkey_using_subcommand help; and __fish_seen_subcommand_from mail" -f -a "retry" -d 'Try again what was given up or waits; a running server does it within seconds'
complete -c latchkey -n "__fish_latchkey_using_subcommand help; and __fish_seen_subcommand_from user" -f -a "create" -d 'Make an account'
complete -c latchkey -n "__fish_latchkey_using_subcommand help; and __fish_seen_subcommand_from user" -f -a "list" -d 'List people, the newest first'
complete -c latchkey -n "__fish_latchkey_using_subcommand help; and __fish_seen_subcommand_from user" -f -a "disable" -d 'Keep somebody out: every session ends at once, on every node, and nobody signs in as that person'
complete -c latchkey -n "__fish_latchkey_using_subcommand help; and __fish_seen_subcommand_from user" -f -a "enable" -d 'Let somebody in again who was disabled'
complete -c latchkey -n "__fish_latchkey_using_subcommand help; and __fish_seen_subcommand_from user" -f -a "sessions" -d 'List what somebody is signed in with, the last used first'
complete -c latchkey -n "__fish_latchkey_using_subcommand help; and __fish_seen_subcommand_from user" -f -a "revoke" -d 'End one session of somebody, or all of them, at once and on every node'
complete -c latchkey -n "__fish_latchkey_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "check" -d 'Show the effective settings, secrets redacted, and every fault'
complete -c latchkey -n "__fish_latchkey_using_subcommand help; and __fish_seen_subcommand_from hash" -f -a "calibrate" -d 'Measure hashes on this machine, and print the LATCHKEY_ARGON2_ settings that come nearest to a time, but below it'
