/* What the CPU calls when the monitor itself does something wrong. Thirty-two stubs of 16 bytes, each
   with the vector's number on top of what the CPU has pushed, and an error code where it has not. */

.section .text.traps, "ax"
.macro TRAP vector
.balign 16
    .if (\vector == 8) || (\vector == 17) || (\vector == 21) || (\vector >= 10 && \vector <= 14)
    .else
    push 0
    .endif
    push \vector
    jmp trapped_stub
.endm
.balign 16
.global trap_stubs
trap_stubs:
.set vector, 0
.rept 32
    TRAP vector
    .set vector, vector + 1
.endr
trapped_stub:
    mov rdi, rsp
    and rsp, -16
    call trapped
2:  hlt
    jmp 2b
