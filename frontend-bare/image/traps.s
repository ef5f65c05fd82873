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
    cmp dword ptr [rsp], 13
    jne 1f
    lea rax, [rip + tried_rdmsr]
    cmp rax, [rsp + 16]
    je 3f
    lea rax, [rip + tried_wrmsr]
    cmp rax, [rsp + 16]
    jne 1f
3:  lea rax, [rip + msr_refused]
    mov [rsp + 16], rax
    add rsp, 16
    iretq
1:  mov rdi, rsp
    and rsp, -16
    call trapped
2:  hlt
    jmp 2b

/* u32 read_msr_or_not(number edi, value rsi); u32 write_msr_or_not(number edi, value rsi): 0 if the CPU
   raised an exception instead, which is the one kind that is not the monitor's own fault. */
.global read_msr_or_not
read_msr_or_not:
    mov ecx, edi
tried_rdmsr:
    rdmsr
    shl rdx, 32
    or rax, rdx
    mov [rsi], rax
    mov eax, 1
    ret
.global write_msr_or_not
write_msr_or_not:
    mov ecx, edi
    mov eax, esi
    mov rdx, rsi
    shr rdx, 32
tried_wrmsr:
    wrmsr
    mov eax, 1
    ret
msr_refused:
    xor eax, eax
    ret
