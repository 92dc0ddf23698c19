// The harmless test file every scanner should find. By its specification a file is the test file only if it begins
// with the 68 characters and holds nothing after them but white space (space, tab, LF, CR, Ctrl-Z), 128 bytes in all.
// Written in hexadecimal, so that this source is not itself the test file.

rule eicar_test_file
{
    meta:
        id = "DW-TEST-0001"
        title = "EICAR test file"
        reason = "The file is the standard test file for virus scanners. It does no harm; it shows that scanning works."
        severity = "low"
        kind = "test"
    strings:
        $whole = { 58 35 4F 21 50 25 40 41 50 5B 34 5C 50 5A 58 35 34 28 50 5E 29 37 43 43 29 37 7D 24
                   45 49 43 41 52 2D 53 54 41 4E 44 41 52 44 2D 41 4E 54 49 56 49 52 55 53 2D 54 45 53 54 2D
                   46 49 4C 45 21 24 48 2B 48 2A }
    condition:
        filesize >= 68 and filesize <= 128 and $whole at 0 and
        for all i in (68..127) : (
            i >= filesize or uint8(i) == 0x20 or uint8(i) == 0x09 or uint8(i) == 0x0A or uint8(i) == 0x0D or uint8(i) == 0x1A
        )
}
