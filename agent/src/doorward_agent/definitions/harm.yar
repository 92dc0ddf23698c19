// Programs whose harm is plain from what they do: ransom, mining, stealing, attacking others.

rule shadow_copies_deleted
{
    meta:
        id = "DW-HARM-0001"
        title = "Deletes the system's restore points"
        reason = "The program deletes shadow copies and switches recovery off, as ransomware does before it encrypts."
        severity = "critical"
        kind = "ransomware"
    strings:
        $vss = /[v]ssadmin(\.exe)?["']?[\s,"']{1,6}delete[\s,"']{1,6}shadows/i ascii wide
        $wmic = /[w]mic(\.exe)?["']?[\s,"']{1,6}shadowcopy[\s,"']{1,6}delete/i ascii wide
        $resize = /[v]ssadmin(\.exe)?["']?[\s,"']{1,6}resize[\s,"']{1,6}shadowstorage[^\n]{0,80}maxsize=(401MB|unbounded)/i ascii wide
        $recovery = /[b]cdedit(\.exe)?["']?[\s,"']{1,6}\/set[^\n]{0,40}recoveryenabled[\s,"']{1,6}no/i ascii wide
        $failures = /[b]cdedit(\.exe)?["']?[\s,"']{1,6}\/set[^\n]{0,40}bootstatuspolicy[\s,"']{1,6}ignoreallfailures/i ascii wide
        $catalog = /[w]badmin(\.exe)?["']?[\s,"']{1,6}delete[\s,"']{1,6}(catalog|systemstatebackup)/i ascii wide
        $powershell = /[W]in32_ShadowCopy[^\n]{0,80}(Delete\(\)|Remove-WmiObject)/i ascii wide
    condition:
        filesize < 32MB and 2 of them
}

rule ransom_note
{
    meta:
        id = "DW-HARM-0002"
        title = "Ransom note"
        reason = "The text says that files are encrypted and names a hidden address or currency to pay with."
        severity = "critical"
        kind = "ransomware"
    strings:
        $claim = /\b([a]ll\s{1,4}(of\s{1,4})?)?your\s{1,4}(important\s{1,4}|personal\s{1,4})?(files|documents|data|network|servers?)[^.\n]{0,120}\b(encrypted|locked|stolen)\b/i
        $pay = /\b([b]itcoin|BTC|monero|XMR)\b/i
        $onion = /\b[a-z2-7]{16}([a-z2-7]{40})?\.[o]nion\b/i
        $back = /\b([d]ecrypt(or|ion|er)?)\b/i
        $warn = /\b(do\s{1,4}not|don'?t)\s{1,4}[^.\n]{0,40}([r]ename|modify|shut\s?down|third[- ]party|recover)/i
    condition:
        filesize < 256KB and $claim and $back and $warn and ($onion or $pay)
}

rule ransom_script_unix
{
    meta:
        id = "DW-HARM-0003"
        title = "Script that encrypts files and removes the originals"
        reason = "A script goes through folders, encrypts each file with a password and deletes what was there."
        severity = "critical"
        kind = "ransomware"
    strings:
        $encrypt = /([o]penssl\s{1,4}enc\s{1,4}[^\n]{0,40}-aes-|gpg\s[^\n]{0,60}(--symmetric|-c)\s)[^\n]{0,240}/
        $all = /(\b[f]ind\s{1,4}(\/\s|\/home|\/root|\/var\/www|\/srv|\/mnt|"?\$\{?HOME)|\bgrep\s{1,4}-r\w{0,4}\s[^\n]{0,60}\/home)/
        $gone = /(\b([r]m|shred)\s{1,4}(-\w{1,8}\s{1,4}){0,3}["']?(\$|\{\}))/
        $claim = /\b([e]ncrypted|ransom|bitcoin|BTC|decrypt(ion)?\s{1,4}key)\b/i
        $tell = /(README|RECOVER|DECRYPT|[H]OW_TO|RANSOM|HELP)[A-Z_]{0,24}\.(txt|html)|\/etc\/motd/i
    condition:
        filesize < 256KB and all of them
}

rule hypervisor_ransom
{
    meta:
        id = "DW-HARM-0004"
        title = "Stops virtual machines to encrypt their disks"
        reason = "The program stops every virtual machine of a hypervisor and goes through their disk files."
        severity = "critical"
        kind = "ransomware"
    strings:
        $kill = /[e]sxcli\s[^\n]{0,40}vm\s{1,4}process\s{1,4}kill/
        $list = /[e]sxcli\s[^\n]{0,60}vm\s{1,4}process\s{1,4}list/
        $snap = /[v]im-cmd\s{1,4}vmsvc\/snapshot\.removeall/
        $disk = /\.[v]mdk\b/
        $state = /\.([v]mem|vswp|vmsn|nvram)\b/
        $note = /\b([e]ncrypt(ed|ing)?|ransom|\.onion)\b/i
    condition:
        filesize < 32MB and ($kill or ($list and $snap)) and $disk and $state and $note
}

rule miner_dropper
{
    meta:
        id = "DW-HARM-0005"
        title = "Script that installs a hidden coin miner"
        reason = "A script downloads a coin miner, makes it executable and starts it against a mining pool."
        severity = "high"
        kind = "miner"
    strings:
        $fetch = /\b([c]url|wget|Invoke-WebRequest|DownloadFile)\b[^\n]{0,300}/i
        $name = /\b([x]mrig|xmr-stak|minerd|cpuminer|ccminer|kdevtmpfsi|kinsing|c3pool|moneroocean)\b/i
        $pool = /([s]tratum\+(tcp|ssl|tls):\/\/|--donate-level|pool\.(minexmr|supportxmr|hashvault|c3pool)|gulf\.moneroocean|xmr\.pool)/i
        $run = /[c]hmod\s{1,4}(\+x|[0-7]?7[0-7]{2})\s/
        $quiet = /([n]ohup\s|>\s{0,4}\/dev\/null\s{1,4}2>&1\s{0,4}&|crontab\s|systemctl\s{1,4}(enable|start)|setsid\s|--background|\W-B\b)/
    condition:
        filesize < 512KB and all of them
}

rule miner_kills_rivals
{
    meta:
        id = "DW-HARM-0006"
        title = "Script that removes other people's miners"
        reason = "A script ends the known coin miners on a computer, as a new intruder does to have it for itself."
        severity = "high"
        kind = "miner"
    strings:
        $kill = /\b([p]kill|killall|kill)\s{1,4}(-9\s{1,4})?(-f\s{1,4})?[^\n]{0,40}\b(xmrig|xmr-stak|minerd|kdevtmpfsi|kinsing|kworkerds|sysrv|watchbog|cryptonight|xmr|ddgs|masscan)\b/
        $search = /[g]rep\s[^\n]{0,60}(xmrig|minerd|kdevtmpfsi|kinsing|cryptonight|stratum|monero)[^\n]{0,120}(awk|xargs)[^\n]{0,80}kill/
        $fetch = /\b([c]url|wget)\s/
    condition:
        filesize < 512KB and $fetch and (#kill + #search) >= 3
}

rule miner_configuration
{
    meta:
        id = "DW-HARM-0007"
        title = "Configuration of a hidden coin miner"
        reason = "The file tells a coin miner to work in the background for somebody's wallet."
        severity = "medium"
        kind = "miner"
    strings:
        $donate = /"[d]onate-level"\s{0,4}:/
        $background = /"[b]ackground"\s{0,4}:\s{0,4}true/
        $pools = /"[p]ools"\s{0,4}:\s{0,4}\[/
        $wallet = /"[u]ser"\s{0,4}:\s{0,4}"[48][0-9AB][1-9A-HJ-NP-Za-km-z]{93}/
    condition:
        filesize < 128KB and $donate and $background and $pools and $wallet
}

rule stealer_python
{
    meta:
        id = "DW-HARM-0008"
        title = "Program that steals saved passwords"
        reason = "The program opens the browser's saved passwords and sends what it finds to a chat service."
        severity = "critical"
        kind = "stealer"
    strings:
        $store = /[L]ogin Data/ ascii wide
        $key = /([o]s_crypt|encrypted_key)/ ascii wide
        $open = /([C]ryptUnprotectData|AES\.new|AESGCM|chrome_decrypt)/ ascii wide
        $send = /(discord(app)?\.com\/[a]pi\/webhooks\/|api\.telegram\.org\/[b]ot)/ ascii wide
        $more = /(\\Google\\Chrome\\[U]ser Data|cookies\.sqlite|leveldb|wallet\.dat|Exodus|tokens?)/i ascii wide
    condition:
        filesize < 32MB and all of them
}

rule bot_gafgyt
{
    meta:
        id = "DW-HARM-0009"
        title = "Attack bot (Gafgyt family)"
        reason = "The program takes orders to flood other computers from a controller; its order words are plain in it."
        severity = "critical"
        kind = "bot"
    strings:
        $a = /[K]ILLATTK/
        $b = /[L]OLNOGTFO/
        $c = /[G]ETLOCALIP/
        $d = /[S]CANNER O(N|FF)/
        $e = /[B]OTKILL/
        $f = /\/bin\/[b]usybox\s{1,4}(wget|tftp|[A-Z]{4,10})/
    condition:
        uint32(0) == 0x464C457F and filesize < 2MB and 3 of them
}

rule bot_downloader_script
{
    meta:
        id = "DW-HARM-0010"
        title = "Script that tries a bot for every processor"
        reason = "A script downloads the same program for many kinds of processors, starts each and removes it."
        severity = "critical"
        kind = "bot"
    strings:
        $fetch = /\b([w]get|curl|tftp|ftpget)\b[^\n]{0,120}(mips|mipsel|mpsl|arm[4-7]?|armv[4-7]l|sh4|ppc|powerpc|m68k|sparc|x86|i[3-6]86)\b/
        $room = /[c]d\s{1,4}\/(tmp|var\/run|mnt|root|var\/tmp|dev\/shm)\b[^\n]{0,80}\|\|/
        $run = /[c]hmod\s{1,4}(\+x|[0-7]?7[0-7]{2})\s[^\n]{1,80}(;|&&|\n)\s{0,8}\.\//
        $gone = /\b[r]m\s{1,4}-r?f\s/
    condition:
        filesize < 128KB and #fetch >= 4 and $room and #run >= 2 and $gone
}

rule password_dumper
{
    meta:
        id = "DW-HARM-0011"
        title = "Tool that reads passwords from memory"
        reason = "The program carries the commands of a well-known tool for reading Windows passwords from memory."
        severity = "high"
        kind = "hacking-tool"
    strings:
        $a = /[s]ekurlsa::(logonpasswords|pth|tickets)/i ascii wide
        $b = /[l]sadump::(sam|dcsync|lsa|secrets)/i ascii wide
        $c = /[k]erberos::(golden|ptt)/i ascii wide
        $d = /[k]uhl_m_(sekurlsa|lsadump|kerberos)/ ascii wide
        $e = /[g]entilkiwi/i ascii wide
    condition:
        filesize < 32MB and uint16(0) == 0x5A4D and 3 of them
}

rule password_dumper_script
{
    meta:
        id = "DW-HARM-0012"
        title = "Script that reads passwords from memory"
        reason = "The script loads a well-known tool for reading Windows passwords into memory and runs it."
        severity = "high"
        kind = "hacking-tool"
    strings:
        $load = /[I]nvoke-Mimi(katz|dogz)/i
        $inject = /[I]nvoke-ReflectivePEInjection/i
        $dump = /[s]ekurlsa::logonpasswords/i
        $bytes = /[P]EBytes(64|32)?\b/i
        $fetch = /\b([i]ex|Invoke-Expression)\b[^\n]{0,80}[D]ownloadString/i
    condition:
        filesize < 8MB and ($load and ($fetch or $dump) or ($inject and $bytes and $dump))
}
