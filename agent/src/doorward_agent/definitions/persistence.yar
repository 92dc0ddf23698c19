// Ways of staying on a computer: scheduled downloads, planted keys, hidden libraries, killed protection.

rule cron_download_and_run
{
    meta:
        id = "DW-STAY-0001"
        title = "Scheduled download that is run unseen"
        reason = "A cron line downloads something and gives it to a shell, so that it comes back after it is removed."
        severity = "high"
        kind = "persistence"
    strings:
        $line = /(^|[\n"'])\s{0,4}(@(reboot|hourly|daily|weekly)|([0-9*\/,-]{1,12}\s{1,4}){4}[0-9*\/,-]{1,12})\s{1,4}[^\n]{0,120}\b([c]url|wget|cdt|wge)\s[^\n|]{1,300}\|\s{0,4}(\/bin\/)?(ba|z|da)?sh\b/
        $inject = /[e]cho\s[^\n]{0,200}(curl|wget)\s[^\n]{1,300}\|\s{0,4}(\/bin\/)?(ba)?sh[^\n]{0,120}(\|\s{0,4}crontab\s{1,4}-|>>?\s{0,4}\/etc\/cron|>>?\s{0,4}\/var\/spool\/cron)/
    condition:
        filesize < 1MB and any of them
}

rule unit_download_and_run
{
    meta:
        id = "DW-STAY-0002"
        title = "Service that downloads and runs a script"
        reason = "A service or autostart entry downloads something at every start and gives it to a shell."
        severity = "high"
        kind = "persistence"
    strings:
        $unit = /\n[E]xec(Start|StartPre|Reload)?\s{0,4}=[^\n]{0,120}\b(curl|wget)\s[^\n|]{1,300}\|\s{0,4}(\/bin\/)?(ba|z|da)?sh\b/
        $decode = /\n[E]xec(Start|StartPre)?\s{0,4}=[^\n]{0,200}base64\s{1,4}(-d|--decode)\s{0,4}\|\s{0,4}(\/bin\/)?(ba|z|da)?sh\b/
        $head = /\[(Service|Desktop Entry)\]/
    condition:
        filesize < 64KB and $head and any of ($unit, $decode)
}

rule shell_start_file_planted
{
    meta:
        id = "DW-STAY-0003"
        title = "Hidden command planted into a shell's start file"
        reason = "An encoded or downloaded command is added to a file that every new shell runs."
        severity = "high"
        kind = "persistence"
    strings:
        $encoded = /[e]cho\s[^\n]{0,400}base64\s{1,4}(-d|-D|--decode)\s{0,4}\|\s{0,4}(\/bin\/)?(ba|z)?sh[^\n]{0,80}>>\s{0,4}[^\s]{0,80}(\.bashrc|\.profile|\.bash_profile|\.zshrc|\/etc\/profile|rc\.local)/
        $fetched = /[e]cho\s[^\n]{0,200}(curl|wget)\s[^\n]{1,300}\|\s{0,4}(\/bin\/)?(ba)?sh[^\n]{0,80}>>\s{0,4}[^\s]{0,80}(\.bashrc|\.profile|\.bash_profile|\.zshrc|\/etc\/profile|rc\.local)/
    condition:
        filesize < 512KB and any of them
}

rule encoded_command_piped_to_shell
{
    meta:
        id = "DW-STAY-0004"
        title = "Encoded command given to a shell"
        reason = "A long encoded text is decoded and run by a shell, which hides what it does."
        severity = "high"
        kind = "dropper"
    strings:
        $text = /[A-Za-z0-9+\/]{80}={0,2}["']?\s{0,4}\|\s{0,4}[b]ase64\s{1,4}(-d|-D|--decode)\s{0,4}\|\s{0,4}(sudo\s{1,4})?(\/bin\/)?(ba|z|da)?sh\b/
        $say = /\b[e]cho\s/
    condition:
        filesize < 1MB and $text and $say
}

rule planted_ssh_key
{
    meta:
        id = "DW-STAY-0005"
        title = "Script that plants a key for remote access"
        reason = "A script adds a stranger's key to those that may sign in, and makes the file hard to change back."
        severity = "high"
        kind = "persistence"
    strings:
        // Three places instead of one expression: the engine gives up on long runs followed by wide gaps.
        $add = /[e]cho\s{1,4}["']?(ssh-(rsa|ed25519)|ecdsa-sha2-nistp256)\s{1,4}[A-Za-z0-9+\/=]{40}/
        $to = /["'a-zA-Z0-9@=]\s{0,4}>>?\s{0,4}[^\s]{0,80}[a]uthorized_keys/
        $lock = /[c]hattr\s{1,4}[+][aiRu]{1,4}\s/
        $unlock = /[c]hattr\s{1,4}-[aiRVu]{1,4}\s/
    condition:
        filesize < 512KB and $add and $to and any of ($lock, $unlock)
}

rule preload_library_planted
{
    meta:
        id = "DW-ROOT-0001"
        title = "Script that plants a library into every program"
        reason = "A script builds or downloads a library and lists it to be loaded into every program, as rootkits do."
        severity = "critical"
        kind = "rootkit"
    strings:
        $list = /([e]cho|printf)\s[^\n]{1,160}\.so[^\n]{0,40}>>?\s{0,4}\/etc\/ld\.so\.preload/
        $build = /\b[g]?cc\s[^\n]{0,160}-shared\b/
        $fetch = /\b([c]url|wget)\s[^\n]{1,300}/
    condition:
        filesize < 512KB and $list and any of ($build, $fetch)
}

rule preload_library_hiding_processes
{
    meta:
        id = "DW-ROOT-0002"
        title = "Library that hides processes or files"
        reason = "A small library replaces the calls that list folders and looks at process names while doing so."
        severity = "critical"
        kind = "rootkit"
    strings:
        $list = "readdir64"
        $next = "dlsym"
        $self = /\/[p]roc\/self\/fd\/%d/
        $name = /\/[p]roc\/%s\/(stat|cmdline|comm|status)/
        $preload = /\/[e]tc\/ld\.so\.preload/
    condition:
        uint32(0) == 0x464C457F and uint8(16) == 3 and filesize < 512KB and $list and $next and
        (($self and $name) or ($preload and any of ($self, $name)))
}

rule kernel_module_hiding
{
    meta:
        id = "DW-ROOT-0003"
        title = "Kernel module that hides processes or files"
        reason = "A kernel module replaces the system calls that list files and processes and hides itself."
        severity = "critical"
        kind = "rootkit"
    strings:
        $table = /[s]ys_call_table/
        $lookup = /[k]allsyms_lookup_name/
        $hook = /\b(hook|hooked|hacked|fake|evil|new|my|orig)_(sys_)?([g]etdents(64)?|kill|tcp4_seq_show)\b/
        $hide = /\b([h]ide|unhide)_?(module|pid|process|file|port|me|self)\b|module_[h]ide\b/
        $give = /\b([g]ive|get|set)_root\b/
    condition:
        uint32(0) == 0x464C457F and uint8(16) == 1 and filesize < 4MB and
        any of ($table, $lookup) and #hook >= 2 and any of ($hide, $give)
}

rule traces_wiped
{
    meta:
        id = "DW-STAY-0006"
        title = "Script that wipes its traces after a download"
        reason = "A script downloads a program, runs it, and erases the shell's history and the system's logs."
        severity = "medium"
        kind = "dropper"
    strings:
        $history = /\b([u]nset\s{1,4}HISTFILE|export\s{1,4}HISTFILE=\/dev\/null|history\s{1,4}-c|HISTSIZE=0)\b/
        $logs = /([r]m\s{1,4}-r?f\s{1,4}|>\s{0,4}|echo\s{1,4}(0|"")\s{0,4}>\s{0,4})\/var\/(log\/(wtmp|lastlog|secure|auth\.log|syslog|btmp|cron|messages)|spool\/mail\/root)/
        $fetch = /\b([c]url|wget)\s[^\n]{0,120}https?:\/\//
        $run = /[c]hmod\s{1,4}(\+x|[0-7]?7[0-7]{2})\s/
    condition:
        filesize < 256KB and $history and #logs >= 2 and $fetch and $run
}

rule protection_switched_off
{
    meta:
        id = "DW-STAY-0007"
        title = "Script that switches protection off before a download"
        reason = "A script turns off the system's virus protection or excludes folders from it, then downloads something."
        severity = "high"
        kind = "dropper"
    strings:
        $off = /[S]et-MpPreference\s[^\n]{0,160}-Disable(RealtimeMonitoring|BehaviorMonitoring|IOAVProtection|ScriptScanning)\s{1,4}(\$true|1)/i
        $exclude = /[A]dd-MpPreference\s[^\n]{0,80}-Exclusion(Path|Extension|Process)\s/i
        $service = /\b(sc(\.exe)?\s{1,4}(stop|delete)|net\s{1,4}stop)\s{1,4}"?[W]inDefend\b/i
        $fetch = /([D]ownloadFile\(|DownloadString\(|Invoke-WebRequest|Start-BitsTransfer|\biwr\s|bitsadmin|certutil)/i
        $run = /(Start-Process|[I]nvoke-Expression|\biex\b|\bstart\s|schtasks)/i
    condition:
        filesize < 512KB and any of ($off, $exclude, $service) and $fetch and $run
}
