/* Interrupts of the part that this port uses; vectors.c puts them into the table. */
#ifndef EW_HANDLERS_H
#define EW_HANDLERS_H

/* vectors.c */
void Wwdg_Handler(void);
void Clock_Handler(void);

/* board.c */
void Pvd_Handler(void);
void Usb_Handler(void);
void Usart1_Handler(void);
void Usart2_Handler(void);
void Usart3_Handler(void);

/* fdcan.c */
void Fdcan1_Handler(void);
void Fdcan2_Handler(void);

#endif
