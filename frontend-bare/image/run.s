/* void run_guest(vmcb rdi, registers rsi, host rdx): physical addresses, which are ours as well.

   VMRUN switches what is in a control block, VMLOAD and VMSAVE what is beside it; the rest of the
   guest's registers is switched here. On return GIF is set again; interrupts are off throughout. */

.section .text.run, "ax"
.global run_guest
run_guest:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    push rdx
    push rsi
    fxrstor64 [rsi + 128]
    mov rax, rdi
    clgi
    mov rbx, [rsi]
    mov rcx, [rsi + 8]
    mov rdx, [rsi + 16]
    mov rdi, [rsi + 32]
    mov rbp, [rsi + 40]
    mov r8, [rsi + 48]
    mov r9, [rsi + 56]
    mov r10, [rsi + 64]
    mov r11, [rsi + 72]
    mov r12, [rsi + 80]
    mov r13, [rsi + 88]
    mov r14, [rsi + 96]
    mov r15, [rsi + 104]
    mov rsi, [rsi + 24]
    vmload rax
    vmrun rax
    vmsave rax
    push rsi
    mov rsi, [rsp + 8]
    mov [rsi], rbx
    mov [rsi + 8], rcx
    mov [rsi + 16], rdx
    mov [rsi + 32], rdi
    mov [rsi + 40], rbp
    mov [rsi + 48], r8
    mov [rsi + 56], r9
    mov [rsi + 64], r10
    mov [rsi + 72], r11
    mov [rsi + 80], r12
    mov [rsi + 88], r13
    mov [rsi + 96], r14
    mov [rsi + 104], r15
    pop rax
    mov [rsi + 24], rax
    fxsave64 [rsi + 128]
    pop rsi
    pop rax
    vmload rax
    stgi
    cld
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret
