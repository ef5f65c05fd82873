/* What the compiler calls and this target's core does not bring. Not in Rust, since the compiler
   would make a call of memcpy out of a memcpy in Rust. */

.section .text.memory, "ax"
.global memcpy
memcpy:
    mov rax, rdi
    mov rcx, rdx
    shr rcx, 3
    rep movsq
    mov ecx, edx
    and ecx, 7
    rep movsb
    ret
.global memmove
memmove:
    mov rax, rdi
    mov rcx, rdi
    sub rcx, rsi
    cmp rcx, rdx
    jae memcpy
    lea rdi, [rdi + rdx - 1]
    lea rsi, [rsi + rdx - 1]
    mov rcx, rdx
    std
    rep movsb
    cld
    ret
.global memset
memset:
    mov r8, rdi
    movzx eax, sil
    mov rcx, 0x0101010101010101
    imul rax, rcx
    mov rcx, rdx
    shr rcx, 3
    rep stosq
    mov ecx, edx
    and ecx, 7
    rep stosb
    mov rax, r8
    ret
.global bcmp
bcmp:                            /* equal or not: by words first */
    mov rcx, rdx
    shr rcx, 3
    cmp rcx, rcx
    repe cmpsq
    jne 4f
    mov ecx, edx
    and ecx, 7
    cmp rcx, rcx
    repe cmpsb
    jne 4f
    xor eax, eax
    ret
4:  mov eax, 1
    ret
.global memcmp
memcmp:
    mov rcx, rdx
    xor eax, eax
    cmp rcx, rcx
    repe cmpsb
    je 3f
    movzx eax, byte ptr [rdi - 1]
    movzx ecx, byte ptr [rsi - 1]
    sub eax, ecx
3:  ret
