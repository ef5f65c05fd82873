/* void run_guest(vmcb rdi, switched rsi, host rdx): physical addresses, which are ours as well.

   VMRUN switches what is in a control block, VMLOAD and VMSAVE what is beside it; the rest of the
   guest's registers is switched here, vectors and XCR0 with them. GIF is clear in the monitor, from the
   first run on: whatever comes meanwhile, NMIs too, waits for whoever runs next (APM volume 2, 15.17).
   Interrupts are off besides; where the guest's own flag does not count, `switched` says whether they
   come through. They are turned on well before VMRUN: the instruction behind STI would
   carry its shadow into the guest. */

.section .data.run, "aw"
.balign 8
.global all_states
all_states:
    .quad 0                      /* what XSAVE saves; 0: the CPU has FXSAVE alone */

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
    push rdi
    mov eax, dword ptr [rip + all_states]
    mov edx, dword ptr [rip + all_states + 4]
    test eax, eax
    jz 2f
    xrstor64 [rsi + 128]
    cmp rax, [rsi + 120]
    je 3f
    xor ecx, ecx
    mov eax, [rsi + 120]
    mov edx, [rsi + 124]
    xsetbv
    jmp 3f
2:  fxrstor64 [rsi + 128]
3:  pop rax
    clgi
    test qword ptr [rsi + 112], 1
    jz 4f
    sti
    nop
4:  mov rbx, [rsi]
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
    cli
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
    mov r8d, dword ptr [rip + all_states]
    test r8d, r8d
    jz 5f
    xor ecx, ecx
    xgetbv
    mov [rsi + 120], eax
    mov [rsi + 124], edx
    mov edx, dword ptr [rip + all_states + 4]
    cmp eax, r8d
    mov eax, r8d
    je 6f
    xsetbv
6:  xsave64 [rsi + 128]
    jmp 7f
5:  fxsave64 [rsi + 128]
7:  pop rsi
    pop rax
    vmload rax
    cld
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret
