// Scripts that hand a shell to somebody on the network, and pages that run what a visitor sends.
// One letter of each telling word is in brackets: the expression matches the word, its own source does not.
// "<?" is looked for last, byte by byte (0x3F3C): as a pattern it would be met in every second page.

rule reverse_shell_bash
{
    meta:
        id = "DW-SHELL-0001"
        title = "Reverse shell (bash)"
        reason = "A shell is started with its input and output tied to a network connection."
        severity = "high"
        kind = "backdoor"
    strings:
        $interactive = /[b]ash\s{1,8}-i\s{0,8}(>&|&>|[0-9]>&[0-9])?\s{0,8}(>&|&>|<|>)\s{0,8}\/dev\/(tcp|udp)\/[0-9a-zA-Z$]/
        $exec = /[e]xec\s{1,8}[0-9]{1,3}<>\s{0,8}\/dev\/(tcp|udp)\/[0-9a-zA-Z$]/
        $feed = /(while\s{1,8}read|cat\s{0,8}<&)[^\n]{0,120}\|?\s{0,8}([b]ash|sh|\$line|\$cmd)[^\n]{0,80}>&[0-9]{1,3}/
    condition:
        filesize < 512KB and ($interactive or ($exec and $feed))
}

rule reverse_shell_netcat
{
    meta:
        id = "DW-SHELL-0002"
        title = "Reverse shell (netcat)"
        reason = "Netcat is told to run a shell for whoever is at the other end."
        severity = "high"
        kind = "backdoor"
    strings:
        $run = /\b([n]c|ncat|netcat|nc\.traditional)\s{1,4}(-[a-z]{1,6}\s{1,4}){0,4}-[a-z]{0,5}[ec]\s{1,4}(\/usr)?\/bin\/(ba|da|z)?sh\s{1,4}[0-9a-z$]/
        $target_first = /\b([n]c|ncat|netcat)\s{1,4}(-[a-z]{1,6}\s{1,4}){0,4}[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\s{1,4}[0-9]{2,5}\s{1,4}-e\s{1,4}(\/usr)?\/bin\/(ba|da|z)?sh/
        $pipe = /[m]kfifo\s{1,4}[^\s;]{1,80}\s{0,4};[^\n]{0,80}\|\s{0,4}(\/usr)?(\/bin\/)?(ba|da)?sh\s{1,4}-i\s{1,4}2>&1\s{0,4}\|\s{0,4}(n(et)?cat|nc|telnet|openssl\s{1,4}s_client)\s/
    condition:
        filesize < 512KB and any of them
}

rule reverse_shell_python
{
    meta:
        id = "DW-SHELL-0003"
        title = "Reverse shell (Python)"
        reason = "A program's input and output are replaced by a network connection and a shell is started on it."
        severity = "high"
        kind = "backdoor"
    strings:
        $connect = /\.[c]onnect\(\(/
        $dup_in = /[d]up2\(\s{0,4}\w{1,32}\.fileno\(\)\s{0,4},\s{0,4}(0|fd)\s{0,4}\)/
        $dup_loop = /[d]up2\(\s{0,4}\w{1,32}\.fileno\(\)\s{0,4},\s{0,4}\w{1,8}\s{0,4}\)\s{1,4}for\s/
        $spawn = /([p]ty\.spawn|subprocess\.(call|run|Popen)|os\.(system|execve?|popen))\(\s{0,4}\[?\s{0,4}["'](\/usr)?(\/bin\/)?(ba|z|da)?sh["']/
    condition:
        filesize < 128KB and $connect and $spawn and any of ($dup*)
}

rule reverse_shell_perl
{
    meta:
        id = "DW-SHELL-0004"
        title = "Reverse shell (Perl)"
        reason = "Standard input and output are reopened on a network socket before a shell is started."
        severity = "high"
        kind = "backdoor"
    strings:
        $stdin = /[o]pen\(\s{0,4}STDIN\s{0,4},\s{0,4}["']>&\s{0,4}\w{1,16}["']\s{0,4}\)/
        $handle = /[S]TDIN->fdopen\(\s{0,4}\$\w{1,16}\s{0,4},\s{0,4}r\s{0,4}\)/
        $shell = /([e]xec|system)\s{0,4}[({]?\s{0,4}(["'](\/usr)?\/bin\/(ba)?sh(\s-i)?["']|\$_)/
        $socket = /([c]onnect\(\s{0,4}\w{1,16}\s{0,4},\s{0,4}sockaddr_in|IO::Socket::INET(->new)?\(\s{0,4}PeerAddr)/
    condition:
        filesize < 128KB and $socket and $shell and ($stdin or $handle)
}

rule reverse_shell_php_ruby
{
    meta:
        id = "DW-SHELL-0005"
        title = "Reverse shell (PHP or Ruby)"
        reason = "A shell is started on the descriptor of a network connection the script has just opened."
        severity = "high"
        kind = "backdoor"
    strings:
        $php = /[f]sockopen\([^\n;]{1,200}\);?\s{0,8}[^\n]{0,120}(exec|shell_exec|system|passthru|popen|proc_open)\(\s{0,4}["'](\/usr)?(\/bin\/)?(ba)?sh\s{0,4}(-i)?\s{0,4}<&[0-9]/
        $ruby = /[T]CPSocket\.(open|new)\([^\n]{1,200}exec\s{0,4}\(?\s{0,4}(sprintf\s{0,4}\(?\s{0,4})?["'](\/usr)?\/bin\/(ba)?sh\s{1,4}-i\s{1,4}<&/
        $ruby_loop = /[T]CPSocket\.(open|new)\([^\n]{1,200}IO\.popen\(\s{0,4}\w{1,16}\s{0,4},\s{0,4}["']r["']/
    condition:
        filesize < 128KB and any of them
}

rule reverse_shell_powershell
{
    meta:
        id = "DW-SHELL-0006"
        title = "Reverse shell (PowerShell)"
        reason = "Commands are read from a network connection, run, and their output sent back."
        severity = "high"
        kind = "backdoor"
    strings:
        $client = /[N]ew-Object\s{1,4}(System\.)?Net\.Sockets\.TCPClient\s{0,4}\(/i
        $stream = /\.[G]etStream\(\)/i
        $run = /\b([i]ex|Invoke-Expression)\b/i
        $back = /[O]ut-String/i
        $bytes = /[G]etBytes\(/i
    condition:
        filesize < 256KB and all of them
}

rule reverse_shell_node
{
    meta:
        id = "DW-SHELL-0007"
        title = "Reverse shell (Node.js)"
        reason = "A shell's input and output are piped to a network connection."
        severity = "high"
        kind = "backdoor"
    strings:
        $module = /[r]equire\(\s{0,4}["'](node:)?child_process["']\s{0,4}\)/
        $shell = /\.?[s]pawn\(\s{0,4}["']((\/usr)?(\/bin\/)?(ba)?sh|cmd(\.exe)?)["']\s{0,4},\s{0,4}\[\s{0,4}(["']-i["'])?\s{0,4}\]/
        $in = /\.[p]ipe\(\s{0,4}\w{1,16}\.stdin\s{0,4}\)/
        $out = /\.[s]tdout\.pipe\(\s{0,4}\w{1,16}\s{0,4}\)/
        $connect = /\.[c]onnect\(\s{0,4}[0-9]{2,5}\s{0,4},\s{0,4}["'][^"'\n]{3,80}["']/
    condition:
        filesize < 128KB and all of them
}

rule web_shell_php_eval
{
    meta:
        id = "DW-WEB-0001"
        title = "Web shell (PHP, runs code from a request)"
        reason = "The page evaluates code that a visitor sends with the request."
        severity = "critical"
        kind = "web-shell"
    strings:
        $eval = /\b@?([e]val|assert)\s{0,4}\(\s{0,4}(@?\w{1,24}\s{0,2}\(\s{0,4}){0,3}@?\$_(POST|GET|REQUEST|COOKIE)\s{0,4}\[/
        $input = /\b@?([e]val|assert)\s{0,4}\(\s{0,4}(@?\w{1,24}\s{0,2}\(\s{0,4}){1,2}file_get_contents\s{0,4}\(\s{0,4}["']php:\/\/input/
        $replace = /[p]reg_replace\s{0,4}\(\s{0,4}["'](.)[^"'\n]{0,40}\/[imsxu]{0,4}e[imsxu]{0,4}["']\s{0,4},\s{0,4}@?\$_(POST|GET|REQUEST|COOKIE)/
        $function = /[c]reate_function\s{0,4}\(\s{0,4}["'][^"'\n]{0,40}["']\s{0,4},\s{0,4}@?\$_(POST|GET|REQUEST|COOKIE)/
        $call = /[\s;{(@]\$_(POST|GET|REQUEST|COOKIE)\s{0,4}\[[^\]\n]{1,40}\]\s{0,4}\(\s{0,4}\$_(POST|GET|REQUEST|COOKIE)\s{0,4}\[/
    condition:
        filesize < 1MB and any of ($eval, $input, $replace, $function, $call) and
        for any i in (0..filesize - 2) : (uint16(i) == 0x3F3C)
}

rule web_shell_php_command
{
    meta:
        id = "DW-WEB-0002"
        title = "Web shell (PHP, runs commands from a request)"
        reason = "The page runs a command line that a visitor sends with the request."
        severity = "critical"
        kind = "web-shell"
    strings:
        $run = /\b@?([s]ystem|shell_exec|passthru|popen|proc_open|pcntl_exec|exec)\s{0,4}\(\s{0,4}(@?\w{1,24}\s{0,2}\(\s{0,4}){0,2}@?\$_(POST|GET|REQUEST|COOKIE)\s{0,4}\[/
        $ticks = /[e]cho\s{0,4}`\s{0,4}\{?\$_(POST|GET|REQUEST|COOKIE)\s{0,4}\[/
    condition:
        filesize < 1MB and any of ($run, $ticks) and
        for any i in (0..filesize - 2) : (uint16(i) == 0x3F3C)
}

rule web_shell_php_packed
{
    meta:
        id = "DW-WEB-0003"
        title = "Packed PHP code"
        reason = "The page unpacks and evaluates code hidden in several layers of encoding, as web shells do."
        severity = "high"
        kind = "web-shell"
    strings:
        $layers = /\b@?([e]val|assert)\s{0,4}\(\s{0,4}@?(gzinflate|gzuncompress|gzdecode|str_rot13|strrev|convert_uudecode)\s{0,4}\(\s{0,4}@?(base64_decode|gzinflate|gzuncompress|str_rot13|strrev|hex2bin|pack)\s{0,4}\(/
        $long = /\b@?([e]val|assert)\s{0,4}\(\s{0,4}@?base64_decode\s{0,4}\(\s{0,4}["'][A-Za-z0-9+\/=]{200}/
    condition:
        filesize < 2MB and any of ($layers, $long) and
        for any i in (0..filesize - 2) : (uint16(i) == 0x3F3C)
}

rule web_shell_java
{
    meta:
        id = "DW-WEB-0004"
        title = "Web shell (JSP)"
        reason = "The page runs a command line that a visitor sends with the request."
        severity = "critical"
        kind = "web-shell"
    strings:
        $direct = /[g]etRuntime\(\)\s{0,4}\.exec\(\s{0,4}(new\s{1,4}String\s{0,4}(\[\]\s{0,4}\{[^}\n]{0,80})?\(?\s{0,4})?request\.getParameter\(/
        $builder = /[n]ew\s{1,4}ProcessBuilder\([^\n;]{0,120}request\.getParameter\(/
        $loader = /[d]efineClass\([^\n;]{0,160}(Base64|decodeBuffer|doFinal)[^\n;]{0,160}/
        $page = /<%@?\s{0,8}page\s|<%!|<jsp:/
        $session = /(session\.(putValue|setAttribute|getAttribute|getValue)\(|request\.getReader\(\)\.readLine\()/
    condition:
        filesize < 512KB and ($direct or $builder or ($page and $loader and $session))
}

rule web_shell_asp
{
    meta:
        id = "DW-WEB-0005"
        title = "Web shell (ASP or ASPX)"
        reason = "The page evaluates code, or runs commands, that a visitor sends with the request."
        severity = "critical"
        kind = "web-shell"
    strings:
        $eval = /<%[^%]{0,200}\b([e]val|execute|executeglobal)\s{0,4}\(?\s{0,4}request\s{0,4}(\.\s{0,2}(item|form|querystring))?\s{0,4}[\[(]\s{0,4}["']/i
        $unsafe = /\b[e]val\s{0,4}\(\s{0,4}Request\s{0,4}(\.\s{0,2}(Item|Form|QueryString))?\s{0,4}\[[^\]\n]{1,40}\]\s{0,4},\s{0,4}["']unsafe["']/i
        $page = /<%@\s{0,8}(Page|WebHandler)/i
        $process = /(new\s{1,4}[P]rocess(StartInfo)?\s{0,4}\(|Process\.Start\s{0,4}\()/
        $shell = /["'](c:\\+windows\\+system32\\+)?[c]md(\.exe)?["']/i
        $wish = /Request\s{0,4}(\.\s{0,2}(Item|Form|QueryString|Params))?\s{0,4}\[|\.Text\b/
    condition:
        filesize < 512KB and ($eval or $unsafe or ($page and $process and $shell and $wish))
}
