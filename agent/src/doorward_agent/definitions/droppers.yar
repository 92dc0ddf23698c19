// Files that fetch and start something else: encoded PowerShell, script hosts, documents with macros, packages.

rule powershell_encoded_hidden
{
    meta:
        id = "DW-DROP-0001"
        title = "Hidden PowerShell with an encoded command"
        reason = "PowerShell is started without a window to run a long encoded command."
        severity = "high"
        kind = "dropper"
    strings:
        $hidden_first = /[p]owershell(\.exe)?["']?\s[^\n]{0,160}-w(in(dowstyle)?)?\s{1,4}(hidden|1)\s[^\n]{0,120}-(e|en|enc|encodedcommand|ec)\s{1,4}["']?[A-Za-z0-9+\/]{60}/i
        $encoded = /[p]owershell(\.exe)?["']?\s[^\n]{0,160}-(e|en|enc|encodedcommand|ec)\s{1,4}["']?[A-Za-z0-9+\/]{60}/i
        $then_hidden = /[A-Za-z0-9+\/]{60}={0,2}["']?\s[^\n]{0,80}-[w](in(dowstyle)?)?\s{1,4}(hidden|1)\b/i
    condition:
        filesize < 4MB and ($hidden_first or ($encoded and $then_hidden))
}

rule powershell_download_cradle
{
    meta:
        id = "DW-DROP-0002"
        title = "Hidden PowerShell that downloads and runs code"
        reason = "PowerShell is started without a window or past its policy to run code straight from the network."
        severity = "high"
        kind = "dropper"
    strings:
        $start = /[p]owershell(\.exe)?["']?\s[^\n]{0,120}-(w(in(dowstyle)?)?\s{1,4}(hidden|1)|nop(rofile)?\s[^\n]{0,60}-(ep|exec(utionpolicy)?)\s{1,4}bypass)\b[^\n]{0,300}/i
        $fetch = /\b([i]ex|Invoke-Expression)\b[\s(&"']{0,8}(\(?New-Object\s{1,4}(System\.)?Net\.WebClient\)?\.DownloadString|\(?(iwr|irm|Invoke-WebRequest|Invoke-RestMethod|curl|wget)\s)[^\n]{0,20}/i
        $piped = /([D]ownloadString\(|\b(iwr|irm|Invoke-WebRequest|Invoke-RestMethod)\s)[^\n|]{1,300}\|\s{0,4}(iex|Invoke-Expression)\b/i
        $hidden = /-w(in(dowstyle)?)?\s{1,4}[h]idden\b/i
    condition:
        filesize < 512KB and $start and $hidden and any of ($fetch, $piped)
}

rule powershell_shellcode
{
    meta:
        id = "DW-DROP-0003"
        title = "PowerShell that loads machine code into memory"
        reason = "A script reserves executable memory, copies bytes there and starts them as a thread."
        severity = "critical"
        kind = "loader"
    strings:
        $reserve = /[V]irtualAlloc(Ex)?\b/
        $thread = /([C]reateThread|CreateRemoteThread|QueueUserAPC)\b/
        $bytes = /\[[B]yte\[\]\]\s{0,4}(\$\w{1,32}\s{0,4}=\s{0,4})?(\(?0x|\[(System\.)?Convert\]::FromBase64String)/i
        $import = /([G]etDelegateForFunctionPointer|DllImport\(\s{0,4}["']kernel32)/i
        $copy = /[M]arshal\]::Copy\(/i
    condition:
        filesize < 2MB and $reserve and $thread and $bytes and $import and $copy
}

rule powershell_amsi_switched_off
{
    meta:
        id = "DW-DROP-0004"
        title = "PowerShell that switches off script scanning"
        reason = "A script reaches into PowerShell itself to stop what it runs from being scanned."
        severity = "high"
        kind = "dropper"
    strings:
        $class = /[A]msi['"+\s]{0,8}Utils/i
        $field = /[a]msi['"+\s]{0,8}Init['"+\s]{0,8}Failed/i
        $set = /\.[S]etValue\(/i
        $patch = /[A]msiScanBuffer/i
        $protect = /[V]irtualProtect\b/
        $copy = /[M]arshal\]::Copy\(/i
    condition:
        filesize < 1MB and (($class and $field and $set) or ($patch and $protect and $copy))
}

rule windows_tool_download
{
    meta:
        id = "DW-DROP-0005"
        title = "Windows tool misused to download and run a program"
        reason = "A tool meant for something else fetches a program from the network, which is then started."
        severity = "high"
        kind = "dropper"
    strings:
        // [^\w\s] is the colon of an address: with the colon itself the engine would stop at every address there is.
        $certutil = /[c]ertutil(\.exe)?\s{1,4}[^\n]{0,60}-urlcache\s[^\n]{0,60}https?[^\w\s]\/\/[^\n]{4,300}(&&?|;|\n)\s{0,8}(start\s|cmd\s|call\s|%\w{1,16}%|[a-z]:\\|\.\\|rundll32|\w{1,40}\.exe)/i
        $regsvr = /[r]egsvr32(\.exe)?\s{1,4}[^\n]{0,40}\/i:\s{0,2}https?:\/\/[^\n]{4,200}scrobj(\.dll)?/i
        $mshta = /[m]shta(\.exe)?\s{1,4}["']?(https?[^\w\s]\/\/[^\s"']{4,200}|javascript:|vbscript:)[^\n]{0,300}(hta|GetObject|WScript|Execute|ActiveXObject|\.Run)/i
        $bits = /[b]itsadmin(\.exe)?\s{1,4}[^\n]{0,40}\/transfer\s[^\n]{0,120}https?[^\w\s]\/\/[^\n]{4,300}(&&?|\n)\s{0,8}(start\s|cmd\s|call\s|%\w{1,16}%|[a-z]:\\|rundll32|\w{1,40}\.exe)/i
    condition:
        filesize < 512KB and any of them
}

rule script_host_dropper
{
    meta:
        id = "DW-DROP-0006"
        title = "Script that downloads, saves and starts a program"
        reason = "A Windows script fetches a file over the network, writes it to disk and runs it."
        severity = "high"
        kind = "dropper"
    strings:
        $shell = /[W]Script\.Shell|[S]hell\.Application/i
        $http = /[M]SXML2\.(Server)?XMLHTTP|WinHttp\.WinHttpRequest/i
        $stream = /[A]DODB\.Stream|Scripting\.FileSystemObject/i
        $save = /\.([S]aveToFile|CreateTextFile)\b/i
        $run = /\.([R]un|ShellExecute|Exec)\s{0,4}[(\s"']/i
        $place = /(%TEMP%|%APPDATA%|%PUBLIC%|[E]xpandEnvironmentStrings|GetSpecialFolder)/i
    condition:
        filesize < 512KB and all of them
}

rule office_macro_download
{
    meta:
        id = "DW-DROP-0007"
        title = "Document macro that runs by itself and downloads"
        reason = "A macro starts when the document is opened and fetches or starts another program."
        severity = "high"
        kind = "macro"
    strings:
        $auto = /\b(Sub|Function)\s{1,4}([A]utoOpen|Auto_Open|AutoExec|AutoClose|Auto_Close|Document_Open|Document_Close|Workbook_Open|Workbook_Activate)\b/i
        $module = /[A]ttribute VB_Name/
        $fetch = /([U]RLDownloadToFile|MSXML2\.(Server)?XMLHTTP|WinHttp\.WinHttpRequest|Net\.WebClient|ADODB\.Stream|InternetOpenUrl)/i
        $start = /\b([S]hell\s{0,4}[("]|WScript\.Shell|ShellExecute|powershell|cmd\.exe|Win32_Process|mshta|rundll32)/i
    condition:
        filesize < 8MB and $auto and $module and $fetch and $start
}

rule html_application_dropper
{
    meta:
        id = "DW-DROP-0008"
        title = "HTML application that starts hidden commands"
        reason = "A local web page with full rights starts a hidden command line or PowerShell."
        severity = "high"
        kind = "dropper"
    strings:
        $app = /<[h]ta:application/i
        $shell = /([W]Script\.Shell|Shell\.Application|Win32_Process)/i
        $command = /([p]owershell|cmd(\.exe)?\s{1,4}\/c|mshta)/i
        $run = /\.([R]un|ShellExecute|Create)\s{0,4}[("\s]/i
        $download = /([D]ownload(File|String)|XMLHTTP|bitsadmin|certutil|Invoke-WebRequest|\biwr\b|-e(nc(odedcommand)?)?\s{1,4}[A-Za-z0-9+\/]{40})/i
    condition:
        filesize < 1MB and $app and $shell and $run and $download and ($command or
        // /,\s{0,4}0/, a window that is not shown. As a pattern it would be met in every table of numbers.
        for any i in (0..filesize - 2) : (
            uint8(i) == 0x2C and for any n in (1..5) : (
                uint8(i + n) == 0x30 and for all k in (1..n) : (
                    k == n or uint8(i + k) == 0x20 or (uint8(i + k) >= 0x09 and uint8(i + k) <= 0x0D)
                )
            )
        ))
}

rule shortcut_with_hidden_command
{
    meta:
        id = "DW-DROP-0009"
        title = "Shortcut that starts a hidden command"
        reason = "A Windows shortcut starts PowerShell or a script host with a hidden or downloading command."
        severity = "high"
        kind = "dropper"
    strings:
        $tool = /([p]owershell|mshta|wscript|cscript|rundll32|cmd\.exe)/i wide
        $hidden = /-w(in(dowstyle)?)?\s{1,4}[h]idden/i wide
        $encoded = /-e(nc(odedcommand)?)?\s{1,4}[A-Za-z0-9+\/]{40}/i wide
        $fetch = /[h]ttps?:\/\/|DownloadString|DownloadFile/i wide
    condition:
        filesize < 1MB and uint32(0) == 0x0000004C and uint32(4) == 0x00021401 and $tool and 2 of ($hidden, $encoded, $fetch)
}

rule pdf_launching_program
{
    meta:
        id = "DW-DROP-0010"
        title = "PDF that starts a program"
        reason = "The document asks the reader to start a command line or PowerShell when it is opened."
        severity = "high"
        kind = "exploit"
    strings:
        $pdf = "%PDF-"
        $launch = /\/[L]aunch\b/
        $open = /\/(OpenAction|AA)\b/
        $what = /\/F\s{0,4}\(\s{0,4}([c]md(\.exe)?|[p]owershell(\.exe)?|mshta(\.exe)?|\/bin\/(ba)?sh)\s{0,4}\)/i
    condition:
        filesize < 32MB and $pdf in (0..1024) and $launch and $open and $what
}

rule rtf_equation_exploit
{
    meta:
        id = "DW-DROP-0011"
        title = "RTF document with an equation object"
        reason = "The document embeds an equation object, made to be updated on opening: a well-known way to run code."
        severity = "high"
        kind = "exploit"
    strings:
        $rtf = /\{\\[r]t/
        $update = /\\[o]bjupdate\b/
        $plain = /\\[o]bjclass\s{1,4}Equation\.3/i
        $coded = /4571756174696[fF]6[eE]2[eE]33/
        $data = /\\[o]bjdata\b/
    condition:
        filesize < 16MB and $rtf at 0 and $data and $update and any of ($plain, $coded)
}

rule package_install_script
{
    meta:
        id = "DW-DROP-0012"
        title = "Package that downloads and runs a script when installed"
        reason = "Installing the package gives something from the network straight to a shell, or runs hidden code."
        severity = "high"
        kind = "supply-chain"
    strings:
        $npm = /"(pre|post)?[i]nstall"\s{0,8}:\s{0,8}"[^"\n]{0,120}\b(curl|wget)\s[^"\n|]{1,300}\|\s{0,4}(ba|z|da)?sh\b/
        $npm_node = /"(pre|post)?[i]nstall"\s{0,8}:\s{0,8}"[^"\n]{0,40}node\s{1,4}-e\s{1,4}[^\n]{0,400}(child_process|eval\(|Buffer\.from\()/
        $setup = /\bsetup\s{0,4}\(/
        $hidden = /\b[e]xec\s{0,4}\(\s{0,4}(compile\s{0,4}\(\s{0,4})?(zlib\.decompress\s{0,4}\(\s{0,4})?(__import__\(\s{0,4}["'](base64|zlib|marshal)["']\s{0,4}\)|base64|marshal|codecs)\.(b64decode|b85decode|a85decode|loads|decode|decompress)\s{0,4}\(/
        $fetched = /\b[e]xec\s{0,4}\(\s{0,4}(requests\.get|urllib\.request\.urlopen|urlopen)\s{0,4}\([^\n]{1,200}\)\.(text|content|read\(\))/
    condition:
        filesize < 512KB and (any of ($npm*) or ($setup and any of ($hidden, $fetched)))
}

rule python_hidden_payload
{
    meta:
        id = "DW-DROP-0013"
        title = "Python program with a long hidden payload"
        reason = "The program unpacks a long encoded text in several layers and runs it."
        severity = "medium"
        kind = "loader"
    strings:
        $layers = /\b[e]xec\s{0,4}\(\s{0,4}((__import__\(\s{0,4}["'](zlib|marshal|lzma|bz2)["']\s{0,4}\)|zlib|marshal|lzma|bz2)\.(decompress|loads)\s{0,4}\(\s{0,4}){1,3}(__import__\(\s{0,4}["']base64["']\s{0,4}\)|base64)\.[ab][0-9]{2}decode\s{0,4}\(\s{0,4}(_|b?["'][^\n]{200})/
    condition:
        filesize < 4MB and $layers
}
