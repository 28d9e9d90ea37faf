# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_deploy_shell_admin_global_optspecs
    string join \n h/help V/version
end

function __fish_deploy_shell_admin_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_deploy_shell_admin_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_deploy_shell_admin_using_subcommand
    set -l cmd (__fish_deploy_shell_admin_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_needs_command" -s h -l help -d 'Print help'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_needs_command" -s V -l version -d 'Print version'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_needs_command" -f -a "init" -d 'Write a commented configuration and create the directories of a site'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_needs_command" -f -a "authorize" -d 'Print the authorized_keys line for a public key'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_needs_command" -f -a "check" -d 'Audit a site: what could someone do with each key? Reports problems with fixes'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_needs_command" -f -a "adopt" -d 'Adopt the releases of Deployer, Capistrano, a script or a plain directory'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_needs_command" -f -a "bridge" -d 'Make files of old releases reachable for pages that visitors have open'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_needs_command" -f -a "drop" -d 'Remove releases that were never live, or that are bad'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_needs_command" -f -a "history" -d 'Show who deployed what and when'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_needs_command" -f -a "repair" -d 'Give the account of a site its own files again, with the modes that requests need'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_needs_command" -f -a "run" -d 'Run a command as the account of a site, without root\'s terminal, files and keys'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_needs_command" -f -a "status" -d 'Show the state of all sites, and what needs attention; for Prometheus too'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_needs_command" -f -a "verify" -d 'Hash releases again and compare them with their manifests'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand init" -l site -d 'A site configured in /etc/deploy-shell/NAME.toml' -r -f -a '(command ls /etc/deploy-shell 2> /dev/null | string match -r ".*(?=[.]toml)")'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand init" -l config -d 'The path of a site\'s configuration' -r -F
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand init" -l root -d 'The root directory of the site' -r -F
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand init" -l owner -d 'The account that the site belongs to, never root [default: the owner of DIR]' -r -f -a '(__fish_complete_users)'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand init" -s h -l help -d 'Print help'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand authorize" -l site -d 'A site configured in /etc/deploy-shell/NAME.toml' -r -f -a '(command ls /etc/deploy-shell 2> /dev/null | string match -r ".*(?=[.]toml)")'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand authorize" -l config -d 'The path of a site\'s configuration' -r -F
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand authorize" -l key -d 'Label of the key, shown in the log' -r
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand authorize" -l allow -d 'The verbs this key may use, and \'files\' for list --files [default: receive,swap,rollback,list]' -r -f -a 'receive swap rollback list files'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand authorize" -s h -l help -d 'Print help'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand check" -l site -d 'A site configured in /etc/deploy-shell/NAME.toml' -r -f -a '(command ls /etc/deploy-shell 2> /dev/null | string match -r ".*(?=[.]toml)")'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand check" -l config -d 'The path of a site\'s configuration' -r -F
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand check" -l sshd-config -d 'The configuration file of sshd [default: the one sshd reads]' -r -F
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand check" -l json -d 'Print one JSON document in place of the report'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand check" -s h -l help -d 'Print help'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand adopt" -l site -d 'A site configured in /etc/deploy-shell/NAME.toml' -r -f -a '(command ls /etc/deploy-shell 2> /dev/null | string match -r ".*(?=[.]toml)")'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand adopt" -l config -d 'The path of a site\'s configuration' -r -F
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand adopt" -l yes -d 'Do it [default: print what would be done]'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand adopt" -s h -l help -d 'Print help'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand bridge" -l site -d 'A site configured in /etc/deploy-shell/NAME.toml' -r -f -a '(command ls /etc/deploy-shell 2> /dev/null | string match -r ".*(?=[.]toml)")'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand bridge" -l config -d 'The path of a site\'s configuration' -r -F
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand bridge" -l warn-only -d 'For a hook: report a failure as a warning and exit with 0'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand bridge" -s h -l help -d 'Print help'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand drop" -l site -d 'A site configured in /etc/deploy-shell/NAME.toml' -r -f -a '(command ls /etc/deploy-shell 2> /dev/null | string match -r ".*(?=[.]toml)")'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand drop" -l config -d 'The path of a site\'s configuration' -r -F
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand drop" -l good -d 'Remove good releases too, but never the live one'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand drop" -s h -l help -d 'Print help'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand history" -l site -d 'A site configured in /etc/deploy-shell/NAME.toml' -r -f -a '(command ls /etc/deploy-shell 2> /dev/null | string match -r ".*(?=[.]toml)")'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand history" -l config -d 'The path of a site\'s configuration' -r -F
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand history" -l since -d 'Only events of this time, such as 12h or 7d [default: all]' -r
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand history" -l json -d 'Print one object of JSON'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand history" -s h -l help -d 'Print help'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand repair" -l site -d 'A site configured in /etc/deploy-shell/NAME.toml' -r -f -a '(command ls /etc/deploy-shell 2> /dev/null | string match -r ".*(?=[.]toml)")'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand repair" -l config -d 'The path of a site\'s configuration' -r -F
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand repair" -l owner -d 'The account of the site [default: what the owners of its directories show]' -r -f -a '(__fish_complete_users)'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand repair" -s h -l help -d 'Print help'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand run" -l site -d 'A site configured in /etc/deploy-shell/NAME.toml' -r -f -a '(command ls /etc/deploy-shell 2> /dev/null | string match -r ".*(?=[.]toml)")'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand run" -l config -d 'The path of a site\'s configuration' -r -F
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand run" -l owner -d 'The account of the site [default: what the owners of its directories show]' -r -f -a '(__fish_complete_users)'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand run" -l stdin -d 'Give the command the standard input of this program'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand run" -s h -l help -d 'Print help'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand status" -l site -d 'A site configured in /etc/deploy-shell/NAME.toml [default: all of them]' -r -f -a '(command ls /etc/deploy-shell 2> /dev/null | string match -r ".*(?=[.]toml)")'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand status" -l config -d 'The path of a site\'s configuration' -r -F
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand status" -l prometheus -d 'Write the metrics of the sites to FILE, for node_exporter, in place of the table' -r -F
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand status" -l json -d 'Print one object of JSON'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand status" -s h -l help -d 'Print help'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand verify" -l site -d 'A site configured in /etc/deploy-shell/NAME.toml' -r -f -a '(command ls /etc/deploy-shell 2> /dev/null | string match -r ".*(?=[.]toml)")'
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand verify" -l config -d 'The path of a site\'s configuration' -r -F
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand verify" -s h -l help -d 'Print help'
function __deploy_shell_releases
    set -l words (commandline -opc)
    set -l config /dev/null
    for i in (seq (count $words))
        switch $words[$i]
            case --site
                set config /etc/deploy-shell/$words[(math $i + 1)].toml
            case --config
                set config $words[(math $i + 1)]
        end
    end
    set -l root (sed -n 's/^root = "\([^"]*\)".*/\1/p' $config 2> /dev/null)
    test -z "$root"; or command ls $root/releases 2> /dev/null |
        LC_ALL=C grep -x '[0-9A-Za-z][0-9A-Za-z._-]*'
end
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand drop" -f -a "(__deploy_shell_releases)"
complete -c deploy-shell-admin -n "__fish_deploy_shell_admin_using_subcommand verify" -f -a "(__deploy_shell_releases)"
