/* From the loader to Rust: 32-bit protected mode without paging, then long mode on static tables.

   The loader finds the entry by an ELF note of the PVH boot protocol (Xen, public/elfnote.h,
   XEN_ELFNOTE_PHYS32_ENTRY) and leaves the address of its start info in EBX
   (public/arch-x86/hvm/start_info.h). Tables map the first 4 GiB to themselves in 2 MiB pages.

   CR4.OSXSAVE is still clear: it is set where XSAVE is known to be there. */

.section .note.Xen, "a", @note
.balign 4
.long 4, 8, 18
.asciz "Xen"
.quad _start32

.section .text.boot, "ax"
.code32
.global _start32
_start32:
    cli
    cld
    mov esp, offset boot_stack_top
    mov dword ptr [start_info], ebx
    mov eax, cr4
    or eax, 0x620                /* PAE, OSFXSR, OSXMMEXCPT */
    mov cr4, eax
    mov eax, offset boot_root
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x900                /* LME, NXE */
    wrmsr
    mov eax, 0x80010033          /* PG, WP, NE, ET, MP, PE; EM and TS clear */
    mov cr0, eax
    lgdt [boot_gdt_register]
    .byte 0xea                   /* far jump: an assembler in Intel's syntax has no word for it */
    .long _start64
    .word 8
.code64
_start64:
    mov ax, 16
    mov ds, ax
    mov es, ax
    mov ss, ax
    xor eax, eax
    mov fs, ax
    mov gs, ax
    lea rsp, [rip + boot_stack_top]
    xor ebp, ebp
    mov edi, dword ptr [rip + start_info]
    call monitor_main
2:  hlt
    jmp 2b

.section .data.boot, "aw"
.balign 4096
boot_root:
    .quad boot_gigabytes + 3
    .fill 511, 8, 0
boot_gigabytes:
    .quad boot_pages + 3
    .quad boot_pages + 0x1003
    .quad boot_pages + 0x2003
    .quad boot_pages + 0x3003
    .fill 508, 8, 0
.global boot_pages
boot_pages:
    .set page, 0
    .rept 2048
    .quad (page << 21) + 0x83
    .set page, page + 1
    .endr
.balign 16
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
boot_gdt_register:
    .word 23
    .long boot_gdt
    .long 0
start_info:
    .long 0

.section .bss.boot, "aw", @nobits
.balign 4096
.global boot_stack
boot_stack:                      /* its first page is taken away before it is used up */
    .skip 0x100000
boot_stack_top:
