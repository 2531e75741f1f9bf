"""What disassembled kernels are read as."""

import gpu_instructions

SASS = """
		Function : _ZN3cvf9propagate4cuda13panel_forwardIfEEv
        /*0000*/                   LDC R1, c[0x0][0x28] ;                /* 0x00000a00ff017b82 */
        /*0010*/              @!P0 LDG.E.CONSTANT R4, desc[UR4][R2.64] ; /* 0x0000000402048981 */
        /*0020*/                   LDS.128 R8, [R3] ;
        /*0030*/                   FFMA R4, R5, R6, R4 ;
        /*0040*/                   FFMA R4, R5, R7, R4 ;
        /*0050*/               @P1 BRA 0x20 ;
        /*0060*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*0070*/                   STG.E desc[UR4][R2.64], R4 ;
        /*0080*/              @!P2 BRA `(.L_x_1) ;
        /*0090*/               @P3 BRA 0x10 ;
        /*00a0*/                   EXIT ;
        /*00b0*/                   NOP;
		Function : _Z5other
        /*0000*/                   EXIT ;
"""


def test_instructions_are_read() -> None:
    found = gpu_instructions.parse(SASS)
    assert [len(code) for code in found.values()] == [11, 1]
    counts = gpu_instructions.mix(next(iter(found.values())))
    assert counts == {"FFMA": 2, "LDG": 1, "LDS": 1, "STG": 1, "BAR": 1, "other": 5}


def test_the_hot_loop_is_the_innermost_with_products() -> None:
    code, other = gpu_instructions.parse(SASS).values()
    assert [i.name for i in gpu_instructions.hot_loop(code)] == ["LDS", "FFMA", "FFMA", "BRA"]
    assert gpu_instructions.hot_loop(other) == []
    assert gpu_instructions.cells(code)[-1] == "4: 2 FFMA, 1 LDS, 0 LD, 0 LDG, 0 SHFL, 0 BAR"
