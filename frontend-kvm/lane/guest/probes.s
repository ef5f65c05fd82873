# Fills every register with what WANTED holds, makes the guest stop once, and stores every register
# to SEEN. All of it is reached relative to rip, so that no register is needed for it; interrupts
# run on a stack of their own, so that rsp is one of sixteen.

.bss
.balign 64
.globl WANTED, SEEN, TICKS, WIDE
WANTED: .skip 16*8 + 16*32
SEEN: .skip 16*8 + 16*32
TICKS: .skip 8
WIDE: .skip 8
OWN_STACK: .skip 8

.text
.macro EACH_GENERAL do
    \do rax, 0
    \do rcx, 1
    \do rdx, 2
    \do rbx, 3
    \do rsp, 4
    \do rbp, 5
    \do rsi, 6
    \do rdi, 7
    \do r8, 8
    \do r9, 9
    \do r10, 10
    \do r11, 11
    \do r12, 12
    \do r13, 13
    \do r14, 14
    \do r15, 15
.endm
.macro LOAD register, number
    mov \register, [rip + WANTED + 8*\number]
.endm
.macro STORE register, number
    mov [rip + SEEN + 8*\number], \register
.endm
.macro EACH_VECTOR do
    .irp number, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
    \do \number
    .endr
.endm
.macro LOAD_YMM number
    vmovups ymm\number, [rip + WANTED + 128 + 32*\number]
.endm
.macro STORE_YMM number
    vmovups [rip + SEEN + 128 + 32*\number], ymm\number
.endm
.macro LOAD_XMM number
    movups xmm\number, [rip + WANTED + 128 + 32*\number]
.endm
.macro STORE_XMM number
    movups [rip + SEEN + 128 + 32*\number], xmm\number
.endm

load_vectors:
    cmp byte ptr [rip + WIDE], 0
    je 2f
    EACH_VECTOR LOAD_YMM
    ret
2:  EACH_VECTOR LOAD_XMM
    ret

store_vectors:
    cmp byte ptr [rip + WIDE], 0
    je 2f
    EACH_VECTOR STORE_YMM
    ret
2:  EACH_VECTOR STORE_XMM
    ret

.macro BEGIN name
.globl \name
\name:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov [rip + OWN_STACK], rsp
    call load_vectors
    EACH_GENERAL LOAD
.endm
.macro FINISH
    EACH_GENERAL STORE
    mov rsp, [rip + OWN_STACK]
    call store_vectors
    cld
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret
.endm

BEGIN probe_halt
    sti
2:  hlt
    cmp qword ptr [rip + TICKS], 1
    jb 2b
    cli
FINISH
BEGIN probe_timer
    sti
2:  cmp qword ptr [rip + TICKS], 3
    jb 2b
    cli
FINISH
BEGIN probe_out1
    out dx, al
FINISH
BEGIN probe_in1
    in al, dx
FINISH
BEGIN probe_out2
    out dx, ax
FINISH
BEGIN probe_in2
    in ax, dx
FINISH
BEGIN probe_out4
    out dx, eax
FINISH
BEGIN probe_in4
    in eax, dx
FINISH
BEGIN probe_store8
    mov [rbx + 0x18], r9
FINISH
BEGIN probe_load8
    mov r10, [rbx + 0x20]
FINISH
BEGIN probe_store4
    mov [rbx + 0x18], r9d
FINISH
BEGIN probe_load4
    mov r10d, [rbx + 0x20]
FINISH
BEGIN probe_cpuid
    cpuid
FINISH
BEGIN probe_wrmsr
    wrmsr
FINISH
BEGIN probe_rdmsr
    rdmsr
FINISH
BEGIN probe_vmmcall
    vmmcall
FINISH

# The timer: counts, and says that it was heard.
.globl on_timer
on_timer:
    push rax
    push rcx
    push rdx
    inc qword ptr [rip + TICKS]
    mov ecx, 0x80b
    xor eax, eax
    xor edx, edx
    wrmsr
    pop rdx
    pop rcx
    pop rax
    iretq

# Whatever else interrupts is a fault: the guest says where, and ends.
.globl on_trap
on_trap:
    mov rdi, [rsp]
    mov rsi, [rsp + 8]
    and rsp, -16
    call {trapped}
    ud2
