# fish completion for edged. Made by python -m tools.reference from the commands.

# Whether the commands that were typed begin with these; --only: are these and no more.
function __edged_at
    argparse only -- $argv
    set -l words (commandline -opc)[2..]
    set -l typed
    while set -q words[1]
        switch $words[1]
            case --against --ambient --case --client --clients --config --ctx --file --format --json --kv --max-tokens --minutes --model --name --node --nodes --out --output --plot --png --policy --pools --profile --prompt --prompt-tokens --quant --root --rounds --seed --shape --slots --system --temperature --threads --tokens --wait-s --workload -o
                set -e words[1] # its value follows
            case '-*'
            case '*'
                set -a typed $words[1]
        end
        set -e words[1]
    end
    if set -q _flag_only
        test "$typed" = "$argv"
    else
        test -z "$argv"; or test "$typed[1..$(count $argv)]" = "$argv"
    end
end

complete -c edged -f
# edged
complete -c edged -n '__edged_at --only' -a run -d 'Serve the model on the MQTT bus until stopped.'
complete -c edged -n '__edged_at --only' -a ask -d 'Ask a node, and print its answer as it comes.'
complete -c edged -n '__edged_at --only' -a status -d 'Show what the nodes on the broker are and how they are doing.'
complete -c edged -n '__edged_at --only' -a top -d 'Watch the nodes on the broker: heat, memory, speed.'
complete -c edged -n '__edged_at --only' -a demo -d 'Show the whole way of one prompt on this machine, then clean up.'
complete -c edged -n '__edged_at --only' -a plan -d 'Show which models fit, how much memory each needs and of what, and which one is best.'
complete -c edged -n '__edged_at --only' -a bench -d 'Measure edged as a whole: prompts over MQTT, on a broker and a daemon of its own.'
complete -c edged -n '__edged_at --only' -a simulate -d 'Run a simulated board in virtual time, and compare with what constant operation could do.'
complete -c edged -n '__edged_at --only' -a models -d 'Fetch, list, show, verify, remove or convert model files.'
complete -c edged -n '__edged_at --only' -a profiles -d 'List, show or detect hardware profiles.'
complete -c edged -n '__edged_at --only' -a config -d 'Show or check the settings.'
complete -c edged -n '__edged_at --only' -a broker -d 'Set up the broker for nodes and clients.'
complete -c edged -n '__edged_at --only' -a doctor -d 'Check what usually goes wrong, and say what to do about it.'
complete -c edged -n '__edged_at --only' -a version -d 'Say which version this is, and which engines are installed.'
complete -c edged -n '__edged_at --only' -l config -rF -d 'Settings file instead of /etc/edged/edged.toml.'
complete -c edged -n '__edged_at --only' -l version -d 'Show the version and exit.'
complete -c edged -n '__edged_at --only' -s h -l help -d 'Show this message and exit.'
# edged run
complete -c edged -n '__edged_at run' -s h -l help -d 'Show this message and exit.'
# edged ask
complete -c edged -n '__edged_at ask' -l node -x -d 'Which node; needed only when several are online.'
complete -c edged -n '__edged_at ask' -l client -x -d 'Our level in the topics; the MQTT user name if there is one.'
complete -c edged -n '__edged_at ask' -l system -x -d 'A system message instead of the operator\'s.'
complete -c edged -n '__edged_at ask' -l max-tokens -x -d 'The longest answer, in tokens.'
complete -c edged -n '__edged_at ask' -l temperature -x -d '0 is greedy.'
complete -c edged -n '__edged_at ask' -l seed -x -d 'Repeats a sample.'
complete -c edged -n '__edged_at ask' -l json -d 'Print the raw messages, one a line.'
complete -c edged -n '__edged_at ask' -s h -l help -d 'Show this message and exit.'
# edged status
complete -c edged -n '__edged_at status' -l node -x -d 'Only this node.'
complete -c edged -n '__edged_at status' -l json -d 'Cards and states as they are.'
complete -c edged -n '__edged_at status' -s h -l help -d 'Show this message and exit.'
# edged top
complete -c edged -n '__edged_at top' -l node -x -d 'Only this node, with all details.'
complete -c edged -n '__edged_at top' -l once -d 'Print what there is now, and end.'
complete -c edged -n '__edged_at top' -s h -l help -d 'Show this message and exit.'
# edged demo
complete -c edged -n '__edged_at demo' -l prompt -x -d 'What to ask.  [default: What can you do?]'
complete -c edged -n '__edged_at demo' -s h -l help -d 'Show this message and exit.'
# edged plan
complete -c edged -n '__edged_at plan' -l profile -x -d 'Plan for this board instead of this machine.'
complete -c edged -n '__edged_at plan' -l model -x -d 'Only this one: of the catalogue or of the store.'
complete -c edged -n '__edged_at plan' -l file -rF -d 'Only this GGUF file.'
complete -c edged -n '__edged_at plan' -l ctx -x -d 'Tokens a prompt and its answer may fill.  [64<=x<=1048576]'
complete -c edged -n '__edged_at plan' -l slots -x -d 'Prompts answered at the same time.  [1<=x<=64]'
complete -c edged -n '__edged_at plan' -l kv -x -a 'f16 q8_0 q4_0' -d 'How keys and values are kept.'
complete -c edged -n '__edged_at plan' -l json -d 'For programs: docs/plan.md.'
complete -c edged -n '__edged_at plan' -l systemd-dropin -d 'Only MemoryMax=, for the service.'
complete -c edged -n '__edged_at plan' -s h -l help -d 'Show this message and exit.'
# edged bench
complete -c edged -n '__edged_at bench' -l model -x -d 'A GGUF file, or a name in the store.'
complete -c edged -n '__edged_at bench' -l shape -x -d 'A model of the catalogue with random weights.'
complete -c edged -n '__edged_at bench' -l quant -x -a 'q4_0 q4_k_m q8_0' -d 'Of --shape.  [default: q4_k_m]'
complete -c edged -n '__edged_at bench' -l clients -x -d 'Who ask at once.  [default: 1; 1<=x<=64]'
complete -c edged -n '__edged_at bench' -l prompt-tokens -x -d 'Of each prompt, about.  [default: 128; 1<=x<=1000000]'
complete -c edged -n '__edged_at bench' -l tokens -x -d 'Of each answer.  [default: 64; 1<=x<=1000000]'
complete -c edged -n '__edged_at bench' -l rounds -x -d 'Pairs that count.  [default: 5; 1<=x<=1000000]'
complete -c edged -n '__edged_at bench' -l against -x -a 'xllamacpp llama_server llama_cpp_server direct' -d 'Measure this in turns with edged.'
complete -c edged -n '__edged_at bench' -l contention -d 'Each round also while another process keeps a core busy.'
complete -c edged -n '__edged_at bench' -l threads -x -d 'Of both sides.  [1<=x<=1024]'
complete -c edged -n '__edged_at bench' -l defaults -d 'Each side takes the threads it would take.'
complete -c edged -n '__edged_at bench' -l json -rF -d 'Write the results here; - is stdout.'
complete -c edged -n '__edged_at bench' -l save -d 'Try all numbers of threads, and plan with the best.'
complete -c edged -n '__edged_at bench' -l png -rF -d 'Draw the rounds (matplotlib).'
complete -c edged -n '__edged_at bench' -s h -l help -d 'Show this message and exit.'
# edged simulate
complete -c edged -n '__edged_at simulate' -l profile -x -d 'The board.  [default: pi5-8gb]'
complete -c edged -n '__edged_at simulate' -l case -x -d 'How it is cooled, as the profile knows it: bare, closed, case, small, cooler.  [default: bare]'
complete -c edged -n '__edged_at simulate' -l ambient -x -d 'Of the air in degrees Celsius; 22:40@30 is 22 until minute 30, then 40.  [default: 22]'
complete -c edged -n '__edged_at simulate' -l policy -x -a 'governor none hysteresis stepwise duty pi oracle' -d '[default: governor]'
complete -c edged -n '__edged_at simulate' -l workload -x -a 'steady voice mixed' -d '[default: steady]'
complete -c edged -n '__edged_at simulate' -l minutes -x -d 'Virtual ones.  [default: 60.0; 0<x<=10000]'
complete -c edged -n '__edged_at simulate' -l seed -x -d 'Of prompts and of noise.  [default: 0]'
complete -c edged -n '__edged_at simulate' -l no-clock -d 'The cap on the clock is not granted.'
complete -c edged -n '__edged_at simulate' -l real-engine -d 'In real time, around a real node with the bundled model; prompts without a pause.'
complete -c edged -n '__edged_at simulate' -l json -d 'For programs: docs/throttling-twin.md.'
complete -c edged -n '__edged_at simulate' -l plot -rF -d 'Draw it as a PNG (matplotlib).'
complete -c edged -n '__edged_at simulate' -s h -l help -d 'Show this message and exit.'
# edged models
complete -c edged -n '__edged_at --only models' -a convert -d 'Rewrite SOURCE (phi3 layout) without loss as TARGET (llama layout, for ctransformers).'
complete -c edged -n '__edged_at --only models' -a list -d 'List the bundled model, the one that is set, the store\'s, and the GGUF files in FOLDERS.'
complete -c edged -n '__edged_at --only models' -a pull -d 'Fetch a model into the store.'
complete -c edged -n '__edged_at --only models' -a rm -d 'Delete the model NAME from the store, or what of it has half arrived.'
complete -c edged -n '__edged_at --only models' -a shape -d 'Write a file of the shape of the catalogue\'s model NAME, with random weights.'
complete -c edged -n '__edged_at --only models' -a show -d 'Show what a file\'s header says: of MODEL, a name in the store or a file.'
complete -c edged -n '__edged_at --only models' -a use -d 'Serve the model NAME of the store; "auto" leaves the choice to edged again.'
complete -c edged -n '__edged_at --only models' -a verify -d 'Compare the weights of the models NAMES with their SHA-256; without NAMES, of all.'
complete -c edged -n '__edged_at --only models' -s h -l help -d 'Show this message and exit.'
# edged models convert
complete -c edged -n '__edged_at models convert' -s h -l help -d 'Show this message and exit.'
complete -c edged -n '__edged_at models convert' -F
# edged models list
complete -c edged -n '__edged_at models list' -s h -l help -d 'Show this message and exit.'
complete -c edged -n '__edged_at models list' -F
# edged models pull
complete -c edged -n '__edged_at models pull' -l name -x -d 'What to call it here, instead of by its file.'
complete -c edged -n '__edged_at models pull' -s h -l help -d 'Show this message and exit.'
# edged models rm
complete -c edged -n '__edged_at models rm' -s y -l yes -d 'Do not ask.'
complete -c edged -n '__edged_at models rm' -s h -l help -d 'Show this message and exit.'
# edged models shape
complete -c edged -n '__edged_at models shape' -l quant -x -a 'q4_0 q4_k_m q8_0' -d 'How its weights are quantised.  [default: q4_k_m]'
complete -c edged -n '__edged_at models shape' -s o -l output -rF -d 'The file to write.  [required]'
complete -c edged -n '__edged_at models shape' -s h -l help -d 'Show this message and exit.'
# edged models show
complete -c edged -n '__edged_at models show' -s h -l help -d 'Show this message and exit.'
# edged models use
complete -c edged -n '__edged_at models use' -l wait-s -x -d 'How long to wait for the daemon.  [default: 900]'
complete -c edged -n '__edged_at models use' -s h -l help -d 'Show this message and exit.'
# edged models verify
complete -c edged -n '__edged_at models verify' -s h -l help -d 'Show this message and exit.'
# edged profiles
complete -c edged -n '__edged_at --only profiles' -a detect -d 'Say which profile this machine has and why, and what memory there is now.'
complete -c edged -n '__edged_at --only profiles' -a list -d 'List the profiles that are shipped and those in /etc/edged/hw_profiles.'
complete -c edged -n '__edged_at --only profiles' -a show -d 'Show what the profile NAME says, with what it extends merged in.'
complete -c edged -n '__edged_at --only profiles' -s h -l help -d 'Show this message and exit.'
# edged profiles detect
complete -c edged -n '__edged_at profiles detect' -l json -d 'For programs.'
complete -c edged -n '__edged_at profiles detect' -s h -l help -d 'Show this message and exit.'
# edged profiles list
complete -c edged -n '__edged_at profiles list' -s h -l help -d 'Show this message and exit.'
# edged profiles show
complete -c edged -n '__edged_at profiles show' -l json -d 'The profile as it is.'
complete -c edged -n '__edged_at profiles show' -s h -l help -d 'Show this message and exit.'
# edged config
complete -c edged -n '__edged_at --only config' -a check -d 'Say whether the settings are valid; exit code 2 when not.'
complete -c edged -n '__edged_at --only config' -a show -d 'Print every setting as it is in force, as TOML; secrets are hidden.'
complete -c edged -n '__edged_at --only config' -s h -l help -d 'Show this message and exit.'
# edged config check
complete -c edged -n '__edged_at config check' -s h -l help -d 'Show this message and exit.'
# edged config show
complete -c edged -n '__edged_at config show' -s h -l help -d 'Show this message and exit.'
# edged broker
complete -c edged -n '__edged_at --only broker' -a acl -d 'Write Mosquitto\'s accounts: one a node and one a client, each with its own topics only.'
complete -c edged -n '__edged_at --only broker' -s h -l help -d 'Show this message and exit.'
# edged broker acl
complete -c edged -n '__edged_at broker acl' -l nodes -x -d 'Their names: attic,cellar.  [required]'
complete -c edged -n '__edged_at broker acl' -l clients -x -d 'Who asks: kitchen,hub. A node may be one, too.  [required]'
complete -c edged -n '__edged_at broker acl' -l pools -x -d 'Of all nodes: fleet. Of some: fleet=attic+cellar,spare=…'
complete -c edged -n '__edged_at broker acl' -l root -x -d 'Of the topics.  [default: edged/v1]'
complete -c edged -n '__edged_at broker acl' -l format -x -a 'dynsec aclfile' -d 'Mosquitto\'s dynamic-security plugin, or the ACL file, which cannot guard pools.  [default: dynsec]'
complete -c edged -n '__edged_at broker acl' -l out -x -a '(__fish_complete_directories)' -d 'The folder to write to.  [default: edged-broker]'
complete -c edged -n '__edged_at broker acl' -s h -l help -d 'Show this message and exit.'
# edged doctor
complete -c edged -n '__edged_at doctor' -l json -d 'For programs.'
complete -c edged -n '__edged_at doctor' -s h -l help -d 'Show this message and exit.'
# edged version
complete -c edged -n '__edged_at version' -s h -l help -d 'Show this message and exit.'
